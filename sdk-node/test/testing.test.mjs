// A broker for somebody's own tests.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { connect, MillpondError } from 'millpond';
import { broker, findBinary, runTransform } from 'millpond/testing';
import { binary, plugin } from './support/broker.mjs';

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

test('a module is tried without a broker', async () => {
  const records = [
    '{"temperature": 20}',
    { key: Buffer.from([0, 255]), value: '{"temperature": 90}', headers: [['a', '1'], ['a', null]], timestamp: new Date(1_700_000_000_000) },
    { key: 'gone', value: null },
  ];
  const [hot, gone, ...others] = await runTransform(plugin('hot'), records, { params: { limit: '80' }, binary: binary() });
  assert.deepEqual([hot.key, hot.value.toString(), hot.timestamp], [Buffer.from([0, 255]), '{"temperature": 90}', new Date(1_700_000_000_000)]);
  assert.deepEqual([hot.headers.getAll('a').map(String), hot.headers.text('alert')], [['1', 'null'], 'hot']);
  assert.deepEqual([gone.key.toString(), gone.value, others.length], ['gone', null, 0]);
  await assert.rejects(runTransform(plugin('hot'), ['no json'], { binary: binary() }), { name: 'TransformError', code: 'guest_failed', message: /not a JSON object/ });
  await assert.rejects(runTransform('/nowhere.wasm', [], { binary: binary() }), { name: 'InvalidError', code: 'module_unreadable' });
  const routed = await runTransform(plugin('route'), ['{"type": "b"}'], { into: ['a', 'b'], binary: binary() });
  assert.deepEqual(routed.map((record) => record.topic), ['b']);
});
