// A broker for somebody's own tests.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { connect, MillpondError } from 'millpond';
import { broker, findBinary } from 'millpond/testing';
import { binary } from './support/broker.mjs';

test('a broker is started, killed, started again and removed with its folder', async () => {
  const own = await broker({ binary: binary() });
  const { url } = own;
  const client = await connect(url);
  await client.admin.createTopic('t');
  await own.kill();
  await own.kill();
  await own.start();
  assert.equal(own.url, url, 'the same address');
  assert.equal((await client.admin.topics()).length, 1, 'the same data');
  await client.close();
  await own[Symbol.asyncDispose]();
  assert.equal(existsSync(own.folder), false);
});

test('a broker that does not start says why, and a binary that is missing where it was looked for', async () => {
  await assert.rejects(broker({ binary: binary(), flags: ['--no-such-flag'] }), (error) => {
    assert.ok(error instanceof MillpondError);
    assert.match(error.message, /--no-such-flag/);
    return error.code === 'broker_failed';
  });
  const before = process.env.MILLPOND_BIN;
  process.env.MILLPOND_BIN = '/nowhere/millpond';
  assert.throws(() => findBinary(), { code: 'broker_missing', message: /\/nowhere\/millpond/ });
  if (before === undefined) delete process.env.MILLPOND_BIN;
  else process.env.MILLPOND_BIN = before;
});
