// The process: when it ends, what it says is open, threads, and the event loop.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import * as millpond from 'millpond';
import { broker, topicName } from './support/broker.mjs';

const { connect, openHandles } = millpond;

/** UDP sockets of this process: one for each connection. */
function sockets() {
  const udp = readFileSync('/proc/net/udp', 'utf8');
  const inode = (descriptor) => {
    try {
      return /^socket:\[(\d+)\]/.exec(readlinkSync(`/proc/self/fd/${descriptor}`))?.[1];
    } catch {
      // Closed in between.
      return undefined;
    }
  };
  return readdirSync('/proc/self/fd').filter((descriptor) => udp.includes(` ${inode(descriptor)} `)).length;
}

/** Runs a program to its end; one that does not end by itself is killed and fails. */
async function run(source, type = 'module') {
  const { url } = await broker();
  const child = spawn(process.execPath, [`--input-type=${type}`, '--eval', source], {
    cwd: new URL('..', import.meta.url),
    env: { ...process.env, MILLPOND_URL: url, TOPIC: topicName() },
    timeout: 10_000,
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (text) => (out += text));
  child.stderr.on('data', (text) => (err += text));
  const [code, signal] = await once(child, 'close');
  return { code, signal, out: out.trim(), err };
}

const begin = `
  import { connect, openHandles } from 'millpond';
  const t = process.env.TOPIC;
  const c = await connect();
  await c.admin.createTopic(t);
`;

test('a process ends by itself when all is closed', async () => {
  const ended = await run(`${begin}
    const p = c.producer(t);
    p.send({ value: 'x' });
    for await (const m of c.consumer(t, { start: 'beginning' })) { console.log(m.value.toString()); break; }
    const waiting = c.consumer(t).next();
    await c.close();
    console.log(await waiting, openHandles().length);
  `);
  assert.deepEqual(ended, { code: 0, signal: null, out: 'x\nundefined 0', err: '' });
});

test('a process that forgets to close says what was open, and loses no record', async () => {
  const ended = await run(`${begin}
    c.producer(t).send({ value: 'x' }).then((place) => console.log(place.offset));
    console.log(openHandles().find((handle) => handle.kind === 'producer').waitsFor);
    c.consumer(t);
  `);
  assert.deepEqual([ended.code, ended.out], [0, '1 record is not answered\n0n']);
  assert.match(ended.err, /\[MILLPOND_OPEN\] MillpondWarning: the process ends and these were not closed: client millpond:\/\/127.*producer t-.*consumer t-/);
});

test('process.exit in the middle of everything ends the process', async () => {
  const ended = await run(`${begin}
    const p = c.producer(t);
    for (let sent = 0; sent < 1000; sent++) p.send({ value: 'x'.repeat(1000) });
    c.consumer(t).next();
    setImmediate(() => process.exit(7));
  `);
  assert.deepEqual([ended.code, ended.signal, ended.err], [7, null, '']);
});

test('CommonJS has the same package', async () => {
  const required = createRequire(import.meta.url)('millpond');
  assert.equal(required.MillpondError, millpond.MillpondError, 'one instance');
  const names = (of) => Object.keys(of).filter((name) => !['__esModule', 'default', 'module.exports'].includes(name));
  assert.deepEqual(names(required).sort(), names(millpond).sort());
  const ended = await run(
    `const { connect } = require('millpond');
    (async () => {
      const c = await connect();
      await c.admin.createTopic(process.env.TOPIC);
      console.log((await c.producer(process.env.TOPIC).send({ value: 'x' })).offset);
      await c.close();
    })();`,
    'commonjs',
  );
  assert.deepEqual(ended, { code: 0, signal: null, out: '0n', err: '' });
});

test('worker threads each have their own clients, and may be ended at any moment', async () => {
  const { url } = await broker();
  const c = await connect(url);
  const t = topicName();
  await c.admin.createTopic(t);
  const before = sockets();
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { connect } = require(workerData.millpond);
    (async () => {
      const c = await connect(workerData.url);
      const p = c.producer(workerData.t);
      await p.send({ value: 'x' });
      parentPort.postMessage('sent');
      if (workerData.stays) {
        for await (const m of c.consumer(workerData.t, { start: 'beginning' })) m.value;
      }
      await c.close();
    })();`;
  const worker = (stays) => new Worker(source, { eval: true, workerData: { url, t, stays, millpond: new URL('../dist/index.js', import.meta.url).pathname } });
  const [first, second, third] = [worker(false), worker(false), worker(true)];
  const exits = [first, second].map((one) => once(one, 'exit'));
  await Promise.all([first, second, third].map((one) => once(one, 'message')));
  assert.deepEqual((await Promise.all(exits)).map(([code]) => code), [0, 0]);
  assert.equal(await third.terminate(), 1);
  assert.ok((await c.admin.topic(t)).partitions[0].highWatermark >= 3n, 'and the main thread goes on');
  // The connection of the one that was ended in the middle goes with it.
  while (sockets() > before) await turn();
  await c.close();
});

test('two loops of one consumer share its records', async () => {
  const { url } = await broker();
  const c = await connect(url);
  const t = topicName();
  await c.admin.createTopic(t);
  await c.producer(t).sendMany(Array.from({ length: 100 }, (_, number) => ({ value: String(number) })));
  const consumer = c.consumer(t, { start: 'beginning', untilEnd: true });
  const seen = [];
  const loop = async () => {
    for await (const message of consumer) seen.push(Number(message.value));
  };
  await Promise.all([loop(), loop()]);
  assert.deepEqual(seen.sort((a, b) => a - b), Array.from({ length: 100 }, (_, number) => number));
  await c.close();
});

test('the event loop turns while records come and go', async () => {
  const { url } = await broker();
  const c = await connect(url);
  const t = topicName();
  await c.admin.createTopic(t, { durability: 'os' });
  let turns = 0;
  let goes = true;
  const count = (async () => {
    for (; goes; turns++) await turn();
  })();
  const value = Buffer.alloc(1_000);
  const places = await c.producer(t).sendMany(
    (function* () {
      for (let sent = 0; sent < 60_000; sent++) yield { value };
    })(),
  );
  assert.equal(places.length, 60_000);
  const whileSending = turns;
  let seen = 0;
  for await (const _ of c.consumer(t, { start: 'beginning', untilEnd: true })) seen++;
  const whileReading = turns - whileSending;
  goes = false;
  await count;
  assert.equal(seen, 60_000);
  // 60 MB are 58 hand-overs of 1 MiB with a buffer of 32 MiB, and as many pushes: the loop turns between them.
  assert.ok(whileSending >= 5, `${whileSending} turns while sending`);
  assert.ok(whileReading >= 20, `${whileReading} turns while reading`);
  await c.close();
});

test('a handler that blocks the event loop costs no connection', async () => {
  const { url } = await broker();
  const c = await connect(url, { idleTimeoutMs: 400 });
  const t = topicName();
  await c.admin.createTopic(t);
  await c.producer(t).send({ value: 'x' });
  // The thread of the event loop does nothing else for longer than the broker waits for a sign of life.
  const until = Date.now() + 600;
  while (Date.now() < until);
  assert.equal(c.isConnected, true);
  await c.close();
});

test('nothing leaks over many connections', async () => {
  const { url } = await broker();
  const threads = () => readdirSync('/proc/self/task').length;
  const t = topicName();
  const once = async () => {
    const c = await connect(url);
    await c.admin.createTopic(t, { ifExists: 'ok' });
    c.producer(t).send({ value: 'x' });
    await c.consumer(t, { start: 'beginning' }).next();
    await c.close();
  };
  await once();
  const before = [threads(), sockets()];
  for (let round = 0; round < 20; round++) await once();
  assert.deepEqual(openHandles(), []);
  // A socket is closed a moment after its connection.
  while (threads() > before[0] + 1 || sockets() > before[1]) await turn();
});
