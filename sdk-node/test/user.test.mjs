// What a person sees who makes a mistake, looks at something, or forgets it.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { connect, openHandles, TransformError, WrongTypeError } from 'millpond';
import { binary, broker, plugin, topicName } from './support/broker.mjs';

let client;
let url;
before(async () => {
  ({ url } = await broker());
  client = await connect(url);
});
after(() => client.close());

async function topic(partitions = 1, options = {}) {
  const name = topicName();
  await client.admin.createTopic(name, { partitions, durability: 'os', ...options });
  return name;
}

const numbered = (count) => Array.from({ length: count }, (_, number) => ({ value: String(number) }));

test('the stack of an error shows the line that asked for it', async () => {
  const missing = topicName('missing');
  const producer = client.producer(missing);
  const calls = {
    async atSend() {
      await producer.send({ value: 'x' });
    },
    async atSendMany() {
      await producer.sendMany([{ value: 'x' }]);
    },
    async atFlush() {
      producer.send({ value: 'x' });
      await producer.flush();
    },
    async atNext() {
      await client.consumer(missing).next();
    },
    async atLoop() {
      for await (const _ of client.consumer(missing));
    },
    async atBatches() {
      for await (const _ of client.consumer(missing).batches());
    },
    async atRun() {
      await client.consumer(missing).run({ eachMessage: () => undefined });
    },
    async atAdmin() {
      await client.admin.topic(missing);
    },
  };
  for (const [name, call] of Object.entries(calls)) {
    const error = await call().then(() => assert.fail(), (thrown) => thrown);
    assert.equal(error.code, 'topic_not_found');
    assert.match(error.stack, new RegExp(`^NotFoundError: there is no topic[^\\n]*\\n[^]*${name} .*user\\.test\\.mjs:\\d+`), error.stack);
  }
  await producer.close().catch(() => undefined);
});

test('a record whose value has another name is refused, not sent without one', async () => {
  const t = await topic();
  const producer = client.producer(t);
  for (const record of [{ vaule: 'x' }, { key: 'k', body: 'x' }, { topic: 't', messages: [{ value: 'x' }] }]) {
    const name = Object.keys(record).find((field) => field !== 'key');
    await assert.rejects(producer.send(record), (error) => error instanceof WrongTypeError && error.message.includes(`\`${name}\``) && /value: null/.test(error.hint));
    await assert.rejects(producer.sendMany([record]), WrongTypeError);
  }
  await producer.sendMany([{}, { key: 'k' }, { key: 'k', value: null }, { value: undefined, headers: {} }]);
  assert.equal((await client.admin.topic(t)).partitions[0].highWatermark, 4n);
});

test('arguments of the wrong kind are told by name, with a code, and change nothing', async () => {
  const t = await topic();
  const producer = client.producer(t);
  const consumer = client.consumer(t);
  const wrong = [
    [() => producer.sendMany({ value: 'x' }), /`sendMany` takes an iterable.*an object/],
    [() => producer.sendMany(), /iterable.*undefined/],
    [() => producer.sendMany('text'), /iterable.*a string/],
    [() => client.admin.topics({ signal: new AbortController() }), /`signal` is an AbortSignal.*AbortController/],
    [() => producer.send({ value: 'x' }, { signal: 5 }), /`signal` is an AbortSignal.*a number/],
    [() => client.admin.createTopic({ name: t }), /the name is a string.*an object/],
    [() => client.admin.createTopic('u', { partitions: '2' }), /number of partitions is a whole number.*a string/],
    [() => client.admin.createTopic('u', { partitions: -1 }), /whole number/],
    [() => client.admin.listOffset(t, '0', 'end'), /the partition is a whole number/],
    [() => client.admin.transforms.attach(t), /the module is a string.*undefined/],
  ];
  for (const [call, words] of wrong) {
    await assert.rejects(async () => call(), (error) => {
      assert.ok(error instanceof WrongTypeError, error.stack);
      assert.match(error.message, words);
      return error.code === 'wrong_type';
    });
  }
  await assert.rejects(consumer.run(), { code: 'invalid_setting', message: /needs a handler/ });
  await assert.rejects(consumer.batches({ maxWaitMs: 'long' }).next(), { code: 'invalid_setting', message: /`maxWaitMs`/ });
  assert.throws(() => client.consumer(t, { start: 'earliest' }), { code: 'wrong_type', message: "'earliest' is no place in a partition", hint: /"beginning"/ });
  assert.throws(() => client.consumer(t, { start: { offset: 'x' } }), { code: 'wrong_type' });
  for (const closing of [producer, client]) {
    for (const timeoutMs of ['soon', -1, NaN]) await assert.rejects(closing.close({ timeoutMs }), { code: 'invalid_setting', message: /`timeoutMs`/ });
  }
  assert.equal((await producer.send({ value: 'still open' })).offset, 0n);
  await producer.close({ timeoutMs: Infinity });
  assert.equal('hint' in (await producer.send({ value: 'x' }).catch((error) => error)), false, 'no `hint: undefined` for a person to read');
});

test('console.log shows what something is', async () => {
  const t = await topic();
  const own = await connect(url);
  const producer = own.producer(t);
  const consumer = own.consumer(t, { start: 'beginning', untilEnd: true });
  const sent = producer.send({ value: 'x' });
  assert.match(inspect(own), /^Client \{ url: 'millpond:.*', isConnected: true, isClosed: false \}$|^Client \{\n\s+url: 'millpond:[^]*isClosed: false\n\}$/);
  assert.equal(inspect(producer), `Producer { topic: '${t}', unanswered: 1, isClosed: false }`);
  assert.equal(inspect(consumer), `Consumer { topic: '${t}', isReading: false, isClosed: false }`);
  await sent;
  const places = await producer.sendMany(numbered(9));
  assert.match(inspect(places), /^Places\(9\) \[[^]*offset: 1n[^]*\] and 6 more$/);
  const { value: batch } = await consumer.batches().next();
  assert.match(inspect(batch), /^Batch\(10\) \[\s*Message \{[^]*\] and 7 more$/);
  assert.equal(inspect({ a: { b: { c: { batch, places } } } }).includes('Batch'), false);
  assert.equal(JSON.parse(JSON.stringify(batch))[9].offset, '9');
  await own.close();
});

test('places are in the order of the records, wherever these went', async () => {
  const t = await topic(3);
  const records = Array.from({ length: 5_000 }, (_, number) => ({ key: number % 7 ? `k${number % 11}` : undefined, value: String(number) }));
  const places = await client.producer(t).sendMany(records);
  const stored = new Map();
  for await (const message of client.consumer(t, { start: 'beginning', untilEnd: true })) stored.set(`${message.partition}:${message.offset}`, message.value.toString());
  const listed = [...places];
  assert.equal(listed.length, records.length);
  for (const [index, { partition, offset }] of listed.entries()) {
    assert.equal(stored.get(`${partition}:${offset}`), String(index));
    assert.deepEqual(places.at(index), listed[index]);
  }
  assert.deepEqual([places.at(5_000), places.at(-5_001), places.at(NaN)], [undefined, undefined, undefined]);
  assert.deepEqual(places.at(-1), listed.at(-1));
});

test('records that a transform leaves out have no offset, and those around them their own', async () => {
  const t = await topic();
  await client.admin.transforms.deploy(`hot-${t}`, plugin('hot'));
  await client.admin.transforms.attach(t, `hot-${t}`, { params: { limit: '80' } });
  const producer = client.producer(t);
  const reading = (temperature) => ({ value: JSON.stringify({ temperature }) });
  assert.deepEqual([...(await producer.sendMany([reading(1), reading(2)]))].map((place) => [place.fate, place.offset]), [['dropped', -1n], ['dropped', -1n]]);
  const mixed = [...(await producer.sendMany([reading(90), reading(1), reading(91)]))];
  const stored = new Map();
  for await (const m of client.consumer(t, { start: 'beginning', untilEnd: true })) stored.set(JSON.parse(m.value.toString()).temperature, m.offset);
  assert.deepEqual([...stored.keys()], [90, 91]);
  // How they are shared out among batches is a matter of time: one that is left out has no offset where all of its batch is.
  assert.deepEqual([mixed[0].offset, mixed[2].offset], [stored.get(90), stored.get(91)]);
  if (mixed[1].fate === 'dropped') assert.equal(mixed[1].offset, -1n);
  else assert.equal(mixed[1].fate, 'stored-unless-dropped');
  const status = await client.admin.transforms.detach(t, `hot-${t}`);
  assert.deepEqual([status.module, status.on, status.recordsIn, status.recordsDropped], [`hot-${t}`, 'produce', 5, 3]);
  await client.admin.transforms.delete(`hot-${t}`);
});

test('detach tells from where a derived topic would go on', async () => {
  const [source, target] = [await topic(2), await topic()];
  await client.admin.transforms.deploy(`route-${source}`, plugin('route'));
  await client.admin.transforms.attach(source, `route-${source}`, { on: 'derive', derive: { targets: [target] } });
  await client.producer(source).sendMany([0, 0, 1].map((partition) => ({ partition, value: JSON.stringify({ type: target }) })));
  const consumer = client.consumer(target, { start: 'beginning' });
  for (let seen = 0; seen < 3; seen++) await consumer.next();
  await consumer.close();
  const status = await client.admin.transforms.detach(source, `route-${source}`, { on: 'derive' });
  assert.deepEqual(status.derived.partitions.map(({ partition, position }) => [partition, position]), [[0, 2n], [1, 1n]]);
  assert.deepEqual([status.derived.targets, typeof status.work.batchTimes.sumUs], [[target], 'number']);
});

test('the log of a module is followed until somebody stops it', async () => {
  const t = await topic();
  const { transforms } = client.admin;
  await transforms.deploy(`hot-${t}`, plugin('hot'));
  await transforms.attach(t, `hot-${t}`, { onError: 'skip' });
  const stop = new AbortController();
  const lines = transforms.follow(`hot-${t}`, { signal: stop.signal });
  const first = lines.next();
  await client.producer(t).send({ value: 'no json' });
  const { value: line } = await first;
  assert.deepEqual([line.topic, line.level, line.failure?.code], [t, 'error', 'guest_failed']);
  const waiting = lines.next();
  stop.abort();
  await assert.rejects(waiting, { name: 'AbortError', code: 'ABORT_ERR' });
  await transforms.detach(t, `hot-${t}`);
});

test('a module is tried where transforms are administered, without asking the broker', async () => {
  const own = await connect(url);
  const { transforms } = own.admin;
  await own.close();
  const options = { params: { limit: '80' }, binary: binary() };
  const out = await transforms.test(plugin('hot'), ['{"temperature": 20}', { value: '{"temperature": 90}' }], options);
  assert.deepEqual(out.map((record) => [record.topic, record.value.toString()]), [['test', '{"temperature": 90}']]);
  const kept = await transforms.test(plugin('hot'), ['no json', '{"temperature": 90}'], { ...options, onError: 'skip', topic: 'readings' });
  assert.deepEqual(kept.map((record) => record.topic), ['readings']);
  await assert.rejects(transforms.test(plugin('hot'), ['no json'], options), TransformError);
  await assert.rejects(transforms.test(plugin('hot'), [], { ...options, onError: 'explode' }), { code: 'invalid_setting', name: 'InvalidError' });
  await assert.rejects(transforms.test(plugin('hot'), [], { binary: '/nowhere/millpond' }), { code: 'broker_missing', hint: /MILLPOND_BIN/ });
  await assert.rejects(transforms.test(plugin('hot'), [], { ...options, signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('what nobody holds any more is collected, and lets go of the broker', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const t = await topic();
  await client.producer(t).send({ value: 'x' });
  const consumers = () => openHandles().filter((handle) => handle.kind === 'consumer' && handle.name === t).length;
  // As in `for await (const m of client.consumer(t)) break;`, which leaves nothing to close.
  for (let round = 0; round < 50; round++) for await (const _ of client.consumer(t, { start: 'beginning' })) break;
  const some = await connect(url);
  const clients = openHandles().filter((handle) => handle.kind === 'client').length;
  await (async () => {
    for (let round = 0; round < 5; round++) await connect(url);
  })();
  do {
    // In a turn of its own: what was looked at in this one is held to its end.
    await turn();
    collect();
    await turn();
  } while (consumers() > 5 || openHandles().filter((handle) => handle.kind === 'client').length > clients + 1);
  await some.close();
});

test('leaving loops over batches, one after the other, loses nothing', async () => {
  const t = await topic();
  await client.producer(t).sendMany(numbered(1_000));
  const consumer = client.consumer(t, { start: 'beginning', untilEnd: true });
  let next = 0;
  while (next < 1_000) {
    for await (const batch of consumer.batches({ maxRecords: 7 })) {
      for (const message of batch) assert.equal(Number(message.value), next++);
      assert.equal(Number([...batch].at(-1).value), next - 1, 'as often as you like');
      break;
    }
    const message = await consumer.next();
    if (message) assert.equal(Number(message.value), next++);
  }
  assert.equal(next, 1_000);
});

test('worker threads that are ended while they send and read leave everybody else alone', async () => {
  const t = await topic();
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { connect } = require(workerData.millpond);
    (async () => {
      const c = await connect(workerData.url);
      const p = c.producer(workerData.t);
      (async () => { for await (const m of c.consumer(workerData.t, { start: 'beginning' })) m.value; })();
      const value = Buffer.alloc(1_000);
      for (let sent = 1; ; sent++) {
        p.send({ value });
        if (sent === 2_000) parentPort.postMessage('sending');
        if (sent % 500 === 0) await p.ready();
      }
    })();`;
  for (let round = 0; round < 5; round++) {
    const worker = new Worker(source, { eval: true, workerData: { url, t, millpond: new URL('../dist/index.js', import.meta.url).pathname } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
  }
  assert.equal((await client.producer(t).send({ value: 'x' })).fate, 'stored');
});

test('a hundred thousand records that nobody waits for are sent, in order', async () => {
  const t = await topic();
  const producer = client.producer(t, { bufferBytes: 1 << 20 });
  for (let sent = 0; sent < 100_000; sent++) producer.send({ value: String(sent) });
  await producer.flush();
  let next = 0;
  for await (const batch of client.consumer(t, { start: 'beginning', untilEnd: true }).batches()) {
    for (const message of batch) if (Number(message.value) !== next++) assert.fail(`${message.value} at ${next - 1}`);
  }
  assert.equal(next, 100_000);
  await producer.close();
});
