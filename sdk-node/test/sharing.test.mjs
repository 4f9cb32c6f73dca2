// What happens when several use one thing at once, or give up in the middle.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { after, before, test } from 'node:test';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { ClosedError, DecodeError, InvalidError, OffsetOutOfRangeError, WrongTypeError, connect, json } from 'millpond';
import { broker, ownBroker } from './support/broker.mjs';

let client;
let number = 0;
const topicName = () => `sharing-${process.pid}-${number++}`;

before(async () => {
  client = await connect((await broker()).url);
});
after(() => client.close());

async function topic(settings) {
  const name = topicName();
  await client.admin.createTopic(name, settings);
  return name;
}

async function filled(values, settings) {
  const name = await topic(settings);
  const producer = client.producer(name);
  await producer.sendMany(values.map((value) => (typeof value === 'string' ? { value } : value)));
  await producer.close();
  return name;
}

const all = { start: 'beginning', untilEnd: true };

async function stored(name) {
  const found = new Map();
  for await (const message of client.consumer(name, all)) found.set(message.value.toString(), message.offset);
  return found;
}

async function* slowly(values) {
  for (const value of values) {
    await setImmediate();
    yield { value };
  }
}

test('send and several sendMany of one producer get their own answers', async () => {
  const t = await topic();
  const producer = client.producer(t);
  const names = (tag) => Array.from({ length: 300 }, (_, count) => `${tag}${count}`);
  const sends = [];
  async function* sending(values) {
    for await (const record of slowly(values)) {
      sends.push(producer.send({ value: `s${sends.length}` }));
      yield record;
    }
  }
  function* atOnce(values) {
    for (const value of values) {
      sends.push(producer.send({ value: `s${sends.length}` }));
      yield { value };
    }
  }
  const many = { a: producer.sendMany(slowly(names('a'))), b: producer.sendMany(sending(names('b'))), c: producer.sendMany(atOnce(names('c'))) };
  const places = Object.fromEntries(await Promise.all(Object.entries(many).map(async ([tag, sent]) => [tag, await sent])));
  const found = await stored(t);
  assert.equal(found.size, 1_500);
  for (const [tag, of] of Object.entries(places)) {
    assert.deepEqual(Array.from(of, ({ offset }) => offset), names(tag).map((name) => found.get(name)), tag);
  }
  const offsets = (await Promise.all(sends)).map(({ offset }) => offset);
  assert.deepEqual(offsets, sends.map((_, count) => found.get(`s${count}`)));
  await producer.close();
});

test('a serializer and a getter that send something themselves do no harm', async () => {
  const t = await topic();
  const inner = [];
  const producer = client.producer(t, { value: { serialize: (text) => (text.length < 6 && inner.push(producer.send({ value: `${text}-inner` })), text) } });
  const headers = { get h() { return inner.push(producer.send({ value: 'headers-inner' })), 'v'; } };
  const outer = await producer.sendMany([{ value: 'one', headers }, { value: 'two' }]);
  const found = await stored(t);
  assert.deepEqual([outer.at(0).offset, outer.at(1).offset], [found.get('one'), found.get('two')]);
  const names = ['one-inner', 'headers-inner', 'two-inner'];
  assert.deepEqual((await Promise.all(inner)).map(({ offset }) => offset).sort(), names.map((name) => found.get(name)).sort());
  await producer.close();
});

test('a signal ends sendMany, whatever its source does', async () => {
  const t = await topic();
  const producer = client.producer(t);
  let isReturned = false;
  async function* endless() {
    try {
      for (;;) {
        await setImmediate();
        yield { value: 'x' };
      }
    } finally {
      isReturned = true;
    }
  }
  const stop = new AbortController();
  const sending = producer.sendMany(endless(), { signal: stop.signal });
  await sleep(20);
  stop.abort();
  await assert.rejects(sending, (error) => error.name === 'AbortError' && error.maybeDone);
  await setImmediate();
  assert.ok(isReturned, 'the source is told');

  const stalled = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) };
  const stopStalled = new AbortController();
  const waiting = producer.sendMany(stalled, { signal: stopStalled.signal });
  stopStalled.abort();
  await assert.rejects(waiting, (error) => error.name === 'AbortError' && !error.maybeDone);

  const stopSync = new AbortController();
  let taken = 0;
  function* sync() {
    for (;;) {
      if (++taken === 10) stopSync.abort();
      yield { value: 'y' };
    }
  }
  await assert.rejects(producer.sendMany(sync(), { signal: stopSync.signal }), { name: 'AbortError' });
  assert.equal(taken, 10);
  await producer.close();
  assert.equal([...(await stored(t)).keys()].includes('y'), true, 'what was taken is sent');
});

test('a record that is refused at once is told by flush, where nobody looks at its promise', async () => {
  const producer = client.producer(await topic());
  const failing = client.producer(await topic(), { value: { serialize: () => assert.fail('mine') } });
  producer.send({ value: 5 });
  await assert.rejects(producer.flush(), WrongTypeError);
  await producer.flush();
  failing.send({ value: 'x' });
  await assert.rejects(failing.flush(), /could not be serialized: mine/);
  const signal = new AbortController().signal;
  producer.send({ value: 'x', partition: 9 }, { signal });
  await assert.rejects(producer.flush(), InvalidError);
  await assert.rejects(producer.send({ value: 5 }), WrongTypeError);
  await producer.flush();
  const stop = new AbortController();
  producer.send({ value: 'x' }, { signal: stop.signal });
  stop.abort();
  await producer.flush();
});

test('a wait that is aborted says that it may have been done, and it is', async () => {
  const own = await ownBroker();
  const frozen = await connect(own.url);
  await frozen.admin.createTopic('t');
  const producer = frozen.producer('t');
  await producer.send({ value: 'first' });
  await own.freeze();
  const stop = new AbortController();
  const options = { signal: stop.signal };
  const waits = [producer.send({ value: 'a' }, options), producer.sendMany([{ value: 'b' }], options), producer.flush(options)];
  const many = Array.from({ length: 50 }, () => producer.send({ value: 'c' }, options));
  assert.ok(getEventListeners(stop.signal, 'abort').length <= 1, 'however many wait');
  await setImmediate();
  stop.abort();
  for (const outcome of await Promise.allSettled([...waits, ...many])) {
    assert.deepEqual([outcome.reason?.name, outcome.reason?.maybeDone], ['AbortError', true]);
  }
  own.thaw();
  await producer.flush();
  assert.equal((await frozen.consumer('t', all).batches().next()).value.length, 53);
  await frozen.close();
  await own.stop();
});

test('closing a producer ends a sendMany that runs', async () => {
  const producer = client.producer(await topic());
  const sending = producer.sendMany(slowly(Array.from({ length: 1_000_000 }, () => 'x')));
  const told = assert.rejects(sending, (error) => error instanceof ClosedError && error.code === 'closed');
  await sleep(10);
  await producer.close();
  await told;
});

test('the event loop has its turns while a source gives millions at once', async () => {
  const producer = client.producer(await topic({ durability: 'os' }));
  let [given, seenAt] = [0, 0];
  setTimeout(() => (seenAt = given), 0);
  function* source() {
    for (; given < 200_000; given++) yield { value: 'x'.repeat(100) };
  }
  await producer.sendMany(source());
  assert.ok(seenAt > 0 && seenAt < 200_000, `a timer fired in the middle, and it fired behind ${seenAt} records`);
  [given, seenAt] = [0, 0];
  setTimeout(() => (seenAt = given), 0);
  for (; given < 200_000; given++) {
    producer.send({ value: 'x'.repeat(100) });
    if (given % 1_000 === 0) await producer.ready();
  }
  assert.ok(seenAt > 0 && seenAt < 200_000, `and for send with ready: behind ${seenAt}`);
  await producer.close();
});

test('a consumer that reads to the end waits for partitions that are paused', async () => {
  const values = Array.from({ length: 100 }, (_, count) => ({ value: String(count), partition: count % 2 }));
  const consumer = client.consumer(await filled(values, { partitions: 2 }), all);
  const seen = [(await consumer.next()).value.toString()];
  await consumer.pause(0);
  const reading = (async () => {
    for await (const message of consumer) seen.push(message.value.toString());
  })();
  await sleep(30);
  assert.ok(seen.length <= 51, 'what is paused is not handed out');
  await consumer.resume(0);
  await reading;
  assert.equal(new Set(seen).size, 100);
  await consumer.pause();
  assert.equal(await consumer.next(), undefined, 'nothing is left');
  await consumer.close();
});

test('a seek and a pause count for a batch that is waited for', async () => {
  const t = await filled(['a', 'b', 'c']);
  const consumer = client.consumer(t, { start: 'beginning' });
  await consumer.open();
  const whole = { maxRecords: 4, maxWaitMs: 60_000 };
  const texts = (result) => result.value.toArray().map((message) => message.value.toString());
  const batch = consumer.batches(whole).next();
  await sleep(20);
  assert.equal(await consumer.position(0), 0n, 'nothing was handed out');
  await consumer.seek(1n);
  await client.producer(t).sendMany([{ value: 'd' }, { value: 'e' }]);
  assert.deepEqual(texts(await batch), ['b', 'c', 'd', 'e']);
  await consumer.seek('beginning');
  const paused = consumer.batches({ maxRecords: 9, maxWaitMs: 300 }).next();
  await sleep(20);
  await consumer.pause(0);
  await sleep(400);
  await consumer.resume(0);
  assert.deepEqual(texts(await paused), ['a', 'b', 'c', 'd', 'e'], 'nothing of a paused partition was handed out before');
  await consumer.close();
});

test('an error that waits to be told is not told behind a seek', async () => {
  const t = await filled(['0', '1', '{', '3', '4']);
  const consumer = client.consumer(t, { ...all, value: json() });
  assert.equal((await consumer.batches().next()).value.length, 2);
  await consumer.seek(4n);
  assert.equal((await consumer.next()).value, 4);
  await consumer.close();
});

test('a deserializer that returns a promise is refused', async () => {
  const t = await filled(['1']);
  const consumer = client.consumer(t, { ...all, value: { deserialize: () => Promise.reject(new Error('nobody sees it')) } });
  await assert.rejects(consumer.next(), (error) => error instanceof DecodeError && /returned a promise/.test(error.message));
  await consumer.close();
});

test('a dead letter that cannot be stored is waited for no longer than is wanted, and its record is not lost', async () => {
  const own = await ownBroker();
  const other = await connect(own.url);
  await other.admin.createTopic('t');
  await other.admin.createTopic('letters');
  await other.producer('t').sendMany([{ value: '1' }, { value: '{' }, { value: '3' }]);
  const consumer = other.consumer('t', { ...all, value: json(), onDecodeError: 'dead-letter', deadLetterTopic: 'letters' });
  assert.equal((await consumer.next()).value, 1);
  await own.freeze();
  await assert.rejects(consumer.next({ signal: AbortSignal.timeout(50) }), { name: 'AbortError' });
  own.thaw();
  assert.equal((await consumer.next()).value, 3);
  assert.equal((await other.consumer('letters', all).batches().next()).value.length, 1);
  await other.close();
  await own.stop();
});

test('a consumer whose start is out of range goes on behind a seek', async () => {
  const t = await filled(['a', 'b', 'c']);
  await client.admin.deleteRecords(t, 0, 2n);
  for (const to of [undefined, 0]) {
    const consumer = client.consumer(t, { start: 0n });
    await assert.rejects(consumer.next(), OffsetOutOfRangeError);
    await assert.rejects(consumer.seek('beginning', { partition: 1 }), InvalidError);
    await consumer.seek('beginning', { partition: to });
    assert.equal((await consumer.next()).value.toString(), 'c');
    await consumer.close();
  }
});

test('numbers and names that cannot be are refused', async () => {
  const t = await filled(['a']);
  const consumer = client.consumer(t, { start: 'beginning' });
  for (const partition of [1.5, NaN, -1, 2 ** 32, '0']) {
    for (const call of [() => consumer.pause(partition), () => consumer.resume(partition), () => consumer.position(partition), () => consumer.seek('end', { partition })]) {
      await assert.rejects(call, WrongTypeError);
    }
  }
  for (const maxRecords of [2.5, 0, NaN]) await assert.rejects(consumer.batches({ maxRecords }).next(), InvalidError);
  await assert.rejects(consumer.batches({ max: 5 }).next(), /`max` is no option of batches: there are maxRecords/);
  await assert.rejects(consumer.run({ eachMessage: () => 1, maxBatch: 5 }), /`maxBatch` is no option of run/);
  assert.throws(() => consumer.stream({ highWaterMark: 5 }), /highWaterMarkBytes/);
  await assert.rejects(client.producer(t).send({ value: 'x', header: { a: 'b' } }), /no field `header`/);
  await consumer.close();
});
