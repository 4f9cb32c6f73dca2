// What is sent comes back, in every form that it can be asked for.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { pipeline } from 'node:stream/promises';
import { connect, json, string, AbortError, ClosedError, DecodeError, EncodeError, InvalidError, NotFoundError, TooLargeError, WrongTypeError } from 'millpond';
import { broker, plugin, topicName } from './support/broker.mjs';

let client;
before(async () => (client = await connect((await broker()).url)));
after(() => client.close());

async function topic(partitions = 1, options = {}) {
  const name = topicName();
  await client.admin.createTopic(name, { partitions, ...options });
  return name;
}

const all = { start: 'beginning', untilEnd: true };

async function read(consumer) {
  const messages = [];
  for await (const message of consumer) messages.push(message);
  return messages;
}

async function filled(values, partitions = 1) {
  const name = await topic(partitions);
  await client.producer(name).sendMany(values.map((value) => (typeof value === 'object' ? value : { value })));
  return name;
}

test('the ten lines', async () => {
  const t = topicName();
  const c = await connect((await broker()).url);
  await c.admin.createTopic(t, { partitions: 2 });
  const p = c.producer(t);
  const place = await p.send({ key: 'k', value: 'v', headers: { unit: 'C' } });
  assert.deepEqual([typeof place.partition, place.offset, place.fate], ['number', 0n, 'stored']);
  assert.ok(Math.abs(place.appendTime - Date.now()) < 60_000);
  p.send({ key: 'k', value: 'w' });
  await p.flush();
  const seen = [];
  for await (const m of c.consumer(t, { start: 'beginning' })) {
    seen.push([m.topic, m.partition, m.offset, m.key.toString(), m.value.toString(), m.headers.text('unit')]);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, [
    [t, place.partition, 0n, 'k', 'v', 'C'],
    [t, place.partition, 1n, 'k', 'w', undefined],
  ]);
  await c.close();
});

test('bytes, nulls, headers and timestamps come back as they were sent', async () => {
  const t = await topic();
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await client.producer(t).sendMany([
    { key: every, value: every, timestamp: new Date(1_700_000_000_123) },
    { key: '', value: '', headers: { empty: '', none: null, bytes: every } },
    { key: 'gone', value: null, timestamp: 5 },
    { headers: [['twice', 'a'], ['twice', 'b'], ['', '?'], ['ü', 'ü€😀']] },
  ]);
  const [bytes, empty, gone, twice] = await read(client.consumer(t, all));
  assert.deepEqual([bytes.key, bytes.value], [every, every]);
  assert.deepEqual([bytes.timestamp, bytes.timestampMs], [new Date(1_700_000_000_123), 1_700_000_000_123]);
  assert.deepEqual([empty.key.length, empty.value.length], [0, 0]);
  assert.deepEqual([...empty.headers], [['empty', Buffer.alloc(0)], ['none', null], ['bytes', every]]);
  assert.deepEqual([gone.key.toString(), gone.value, gone.timestampMs], ['gone', null, 5]);
  assert.deepEqual([twice.key, twice.value, twice.headers.size], [null, null, 4]);
  assert.deepEqual([twice.headers.text('twice'), twice.headers.getAll('twice').length, twice.headers.text('ü')], ['b', 2, 'ü€😀']);
  assert.deepEqual([twice.headers.get('other'), twice.headers.has(''), empty.headers.text('none')], [undefined, true, null]);
  assert.equal(JSON.parse(JSON.stringify(gone)).offset, '2');
});

test('values are views over one batch, and a copy is not', async () => {
  const t = await filled(['first', { key: 'k', value: 'second', headers: { h: 'v' } }]);
  const [first, second] = await read(client.consumer(t, all));
  assert.equal(first.value.buffer, second.value.buffer, 'one owner');
  const copy = second.copy();
  assert.notEqual(copy.value.buffer, second.value.buffer);
  assert.deepEqual([copy.key, copy.value, copy.headers.text('h'), copy.offset], [second.key, second.value, 'v', 1n]);
  assert.ok(copy.value.buffer.byteLength < 200, 'no more than its own bytes');
});

test('what one turn of the event loop sends goes over together, and a buffer may be used again at once', async () => {
  const t = await topic();
  const producer = client.producer(t);
  const value = Buffer.alloc(1);
  const places = await Promise.all(
    Array.from({ length: 100 }, (_, number) => {
      value[0] = number;
      return producer.send({ value });
    }),
  );
  assert.deepEqual(places.map((place) => place.offset), Array.from({ length: 100 }, (_, number) => BigInt(number)));
  const messages = await read(client.consumer(t, all));
  assert.deepEqual(messages.map((message) => message.value[0]), Array.from({ length: 100 }, (_, number) => number));
});

test('sendMany takes any source, in order, and one that is far larger than the buffer', async () => {
  const t = await topic(1, { durability: 'os' });
  const producer = client.producer(t, { bufferBytes: 1 << 20, compression: 'lz4' });
  const value = Buffer.alloc(10_000, 'x');
  async function* source() {
    for (let number = 0; number < 2_000; number++) yield { key: String(number), value };
  }
  const places = await producer.sendMany(source());
  assert.equal(places.length, 2_000);
  assert.deepEqual([places.at(0).offset, places.at(-1).offset, [...places][7].offset], [0n, 1_999n, 7n]);
  let next = 0;
  for await (const message of client.consumer(t, all)) assert.equal(message.key.toString(), String(next++));
  assert.equal(next, 2_000);
  assert.equal((await producer.sendMany([])).length, 0);
});

test('records without a byte are bounded as well', async () => {
  const t = await topic(1, { durability: 'os' });
  const places = await client.producer(t, { bufferBytes: 1 << 20 }).sendMany(
    (function* () {
      for (let sent = 0; sent < 50_000; sent++) yield {};
    })(),
  );
  assert.deepEqual([places.length, places.at(-1).offset], [50_000, 49_999n]);
});

test('serializers make the types, both ways', async () => {
  const t = await topic();
  const producer = client.producer(t, { key: string(), value: json() });
  await producer.send({ key: 'a', value: { celsius: 21.4 } });
  await producer.send({ key: 'b', value: null });
  const [a, b] = await read(client.consumer(t, { ...all, key: string(), value: json() }));
  assert.deepEqual([a.key, a.value, b.key, b.value], ['a', { celsius: 21.4 }, 'b', null]);
  await client.producer(t, { value: { serialize: (number) => Buffer.from([number]) } }).send({ value: 7 });
  const own = client.consumer(t, { start: { offset: 2n }, untilEnd: true, value: { deserialize: (bytes) => bytes[0] } });
  assert.equal((await read(own))[0].value, 7);
});

test('a value of the wrong type is refused with what to do, and nothing of it is sent', async () => {
  const t = await topic();
  const producer = client.producer(t);
  await assert.rejects(producer.send({ value: { celsius: 3 } }), (error) => {
    assert.ok(error instanceof WrongTypeError && error instanceof InvalidError);
    assert.match(`${error.message} ${error.hint}`, /an object of the class Object.*json\(\)/);
    return error.code === 'wrong_type';
  });
  for (const [record, words] of [
    [{ value: 5 }, /a number/],
    [{ key: true, value: '' }, /a boolean/],
    [{ value: 'x', timestamp: 1.5 }, /whole milliseconds/],
    [{ value: 'x', timestamp: new Date(NaN) }, /timestamp/],
    [{ value: 'x', partition: -1 }, /whole number from 0/],
    [{ value: 'x', headers: { a: 5 } }, /the header `a`/],
    [{ value: 'x', headers: 'a' }, /headers are/],
    [null, /a record is an object/],
  ]) {
    await assert.rejects(producer.send(record), words);
    await assert.rejects(producer.sendMany([record]), words);
  }
  const strict = client.producer(t, { value: string() });
  await assert.rejects(strict.send({ value: 5 }), WrongTypeError);
  await assert.rejects(client.producer(t, { value: json() }).send({ value: () => 1 }), (error) => {
    assert.ok(error instanceof EncodeError && error.cause instanceof TypeError);
    return error.code === 'encode_failed';
  });
  await assert.rejects(client.producer(t, { value: { serialize: () => 5 } }).send({ value: 1 }), /neither a string nor bytes/);
  assert.throws(() => client.producer(t, { value: {} }), InvalidError);
  assert.throws(() => client.consumer(t, { value: {} }), InvalidError);
  await producer.flush();
  assert.equal((await client.admin.topic(t)).partitions[0].highWatermark, 0n);
});

test('a record that is too large fails alone', async () => {
  const t = await topic(1, { maxBatchBytes: 100_000 });
  const producer = client.producer(t);
  const outcomes = await Promise.allSettled(['a', 'x'.repeat(200_000), 'b'].map((value) => producer.send({ value })));
  assert.deepEqual(outcomes.map((outcome) => outcome.status), ['fulfilled', 'rejected', 'fulfilled']);
  const { reason } = outcomes[1];
  assert.ok(reason instanceof TooLargeError);
  assert.deepEqual([reason.code, reason.retryable], ['record_too_large', false]);
  assert.match(reason.hint, /max-batch-bytes/);
});

test('a failure that nobody looks at is told by flush, once; one that was looked at is not told again', async () => {
  const producer = client.producer(topicName('missing'));
  await assert.rejects(producer.send({ value: 'seen' }), NotFoundError);
  await producer.flush();
  producer.send({ value: 'unseen' });
  await assert.rejects(producer.flush(), { name: 'NotFoundError', code: 'topic_not_found' });
  await producer.flush();
  producer.send({ value: 'unseen' });
  await assert.rejects(producer.close(), NotFoundError);
});

test('a producer tells what it has done, and a client how far its broker is', async () => {
  const t = await topic();
  const producer = client.producer(t);
  await producer.sendMany(Array.from({ length: 10 }, () => ({ value: 'x' })));
  await assert.rejects(producer.send({ value: 'x', partition: 9 }), InvalidError);
  const { stats } = producer;
  assert.deepEqual([stats.records, stats.recordsDropped, stats.retries, stats.bufferedBytes], [10, 0, 0, 0]);
  assert.ok(stats.bytes > 10 && stats.batches >= 1 && stats.ackLatencyP99Ms >= stats.ackLatencyP50Ms && stats.ackLatencyP50Ms > 0, JSON.stringify(stats));
  assert.ok(client.roundTripMs > 0);
  await producer.close();
  assert.throws(() => producer.stats, ClosedError);
});

test('a deserializer that throws: raise goes on behind, skip leaves out, raw hands out, dead-letter keeps', async () => {
  const t = await filled([{ value: '1' }, { key: 'k', value: '{', headers: { h: 'v' } }, { value: '3' }]);
  const raising = client.consumer(t, { ...all, value: json() });
  const seen = [];
  await assert.rejects(async () => {
    for await (const message of raising) seen.push(message.value);
  }, (error) => {
    assert.ok(error instanceof DecodeError && error.cause instanceof SyntaxError);
    assert.deepEqual([error.code, error.offset, error.part, error.record.value.toString()], ['decode_failed', 1n, 'value', '{']);
    return true;
  });
  for await (const message of raising) seen.push(message.value);
  assert.deepEqual(seen, [1, 3], 'the bad record stops it once');

  const values = async (options) => (await read(client.consumer(t, { ...all, value: json(), ...options }))).map((message) => message.value);
  assert.deepEqual(await values({ onDecodeError: 'skip' }), [1, 3]);
  const raw = await read(client.consumer(t, { ...all, value: json(), onDecodeError: 'raw' }));
  assert.deepEqual([raw[1].value.toString(), raw[1].decodeError instanceof DecodeError, raw[0].decodeError], ['{', true, undefined]);

  const letters = await topic();
  assert.deepEqual(await values({ onDecodeError: 'dead-letter', deadLetterTopic: letters }), [1, 3]);
  const [letter] = await read(client.consumer(letters, all));
  assert.deepEqual([letter.key.toString(), letter.value.toString(), letter.headers.text('h')], ['k', '{', 'v']);
  assert.deepEqual(['code', ''].map((part) => typeof letter.headers.text(`millpond.error${part && `.${part}`}`)), ['string', 'string']);
  assert.deepEqual([letter.headers.text('millpond.topic'), letter.headers.text('millpond.offset')], [t, '1']);

  const missing = topicName('missing');
  const stuck = client.consumer(t, { ...all, value: json(), onDecodeError: 'dead-letter', deadLetterTopic: missing });
  assert.equal((await stuck.next()).value, 1);
  await assert.rejects(stuck.next(), NotFoundError, 'the letter could not be stored');
  await client.admin.createTopic(missing);
  assert.deepEqual([(await stuck.next()).value, (await read(client.consumer(missing, all))).length], [3, 1], 'and was not lost');
  assert.throws(() => client.consumer(t, { onDecodeError: 'dead-letter' }), /needs a topic/);
  assert.throws(() => client.consumer(t, { onDecodeError: 'ignore' }), InvalidError);
  const batches = client.consumer(t, { ...all, value: json() }).batches();
  assert.deepEqual((await batches.next()).value.toArray().map((message) => message.value), [1]);
  await assert.rejects(batches.next(), DecodeError, 'behind what was there before it');
});

test('dead letters go together, and one that cannot be stored stores no other twice', async () => {
  const bad = (number) => ({ key: String(number), value: '{' });
  const t = await filled([{ value: '0' }, ...Array.from({ length: 2_500 }, (_, number) => bad(number)), { value: '1' }, bad('last'), { value: '2' }]);
  const letters = await topic();
  let decodes = 0;
  const value = {
    deserialize(bytes) {
      decodes++;
      return JSON.parse(bytes.toString());
    },
  };
  const options = { ...all, value, onDecodeError: 'dead-letter', deadLetterTopic: letters };
  assert.deepEqual((await read(client.consumer(t, options))).map((message) => message.value), [0, 1, 2]);
  assert.equal(decodes, 2_504, 'each record once');
  const stored = await read(client.consumer(letters, all));
  assert.deepEqual(stored.map((letter) => letter.key.toString()), [...Array(2_500).keys(), 'last'].map(String));

  // The third is too large for the topic of the letters until that takes larger ones; those around it can be stored.
  const mixed = await filled([bad('a'), bad('b'), { key: 'c', value: `{${'x'.repeat(4_000)}` }, bad('d'), bad('e'), { value: '5' }]);
  const narrow = await topic(1, { maxBatchBytes: 2_048 });
  const stuck = client.consumer(mixed, { ...options, deadLetterTopic: narrow });
  for (let attempt = 0; attempt < 3; attempt++) await assert.rejects(stuck.next(), TooLargeError);
  const keys = async () => (await read(client.consumer(narrow, all))).map((letter) => letter.key.toString());
  assert.deepEqual(await keys(), ['a', 'b', 'd', 'e']);
  await client.admin.alterTopic(narrow, { maxBatchBytes: 1 << 20 });
  assert.equal((await stuck.next()).value, 5);
  assert.deepEqual(await keys(), ['a', 'b', 'd', 'e', 'c']);
  await stuck.close();
});

test('a batch says where to go on, and a consumer goes on there', async () => {
  const t = await filled(Array.from({ length: 25 }, (_, number) => String(number)));
  for (const value of [undefined, json()]) {
    const first = client.consumer(t, { start: 'beginning', value });
    const { nextOffsets } = (await first.batches({ maxRecords: 10 }).next()).value;
    assert.deepEqual(nextOffsets, new Map([[0, 10n]]));
    await first.close();
    for (const offsets of [nextOffsets, { 0: 10 }, { 0: 10n }]) {
      const again = client.consumer(t, { offsets, untilEnd: true });
      const rest = (await again.batches().next()).value;
      assert.deepEqual([rest.length, rest.at(0).value.toString(), rest.nextOffsets], [15, '10', new Map([[0, 25n]])]);
      await again.close();
    }
  }
});

test('batches are as large as is wanted, and leaving loses nothing', async () => {
  const t = await filled(Array.from({ length: 25 }, (_, number) => String(number)));
  const consumer = client.consumer(t, { start: 'beginning' });
  const sizes = [];
  for await (const batch of consumer.batches({ maxRecords: 10 })) {
    sizes.push(batch.length);
    if (sizes.length === 2) break;
  }
  assert.deepEqual(sizes, [10, 10]);
  assert.equal((await consumer.next()).value.toString(), '20');
  const waited = consumer.batches({ maxRecords: 5, maxWaitMs: 60_000 });
  const batch = waited.next();
  await client.producer(t).send({ value: 'late' });
  assert.deepEqual((await batch).value.toArray().map(String).length, 5);
  assert.deepEqual([(await batch).value.at(0).value.toString(), (await batch).value.at(-1).value.toString()], ['21', 'late']);
  await client.producer(t).send({ value: 'alone' });
  assert.equal((await consumer.batches({ maxRecords: 5, maxWaitMs: 1 }).next()).value.length, 1, 'the wait ends');
  assert.throws(() => consumer.stream({ highWaterMarkBytes: 0 }), InvalidError);
  await assert.rejects(consumer.batches({ maxRecords: 0 }).next(), InvalidError);
  await consumer.close();
});

test('a stream reads ahead as many bytes as it may, and ends with pipeline', async () => {
  const t = await filled(Array.from({ length: 100 }, () => 'x'.repeat(1_000)));
  const stream = client.consumer(t, { start: 'beginning' }).stream({ highWaterMarkBytes: 10_000 });
  await once(stream, 'readable');
  assert.equal(stream.readableLength, 10, 'ten records of 1,000 bytes, whatever their number');
  stream.destroy();
  const counted = [];
  await pipeline(client.consumer(t, all).stream(), async (source) => {
    for await (const message of source) counted.push(message.offset);
  });
  assert.equal(counted.length, 100);
  const large = client.consumer(t, all).stream({ highWaterMarkBytes: 1 });
  assert.equal((await large.toArray()).length, 100, 'a record that is larger passes alone');
});

test('run calls a handler until it is told to stop, and throws what that throws', async () => {
  const t = await filled(['1', '2', '3']);
  const stop = new AbortController();
  const seen = [];
  const consumer = client.consumer(t, { start: 'beginning' });
  await consumer.run({
    signal: stop.signal,
    eachMessage: async (message) => {
      seen.push(message.value.toString());
      if (seen.length === 2) stop.abort();
    },
  });
  assert.deepEqual(seen, ['1', '2']);
  await consumer.seek('beginning');
  const sizes = [];
  const running = consumer.run({
    eachBatch: (batch) => {
      sizes.push(batch.length);
      void consumer.close();
    },
  });
  await running;
  assert.deepEqual(sizes, [3]);
  const throwing = client.consumer(t, { start: 'beginning' });
  await assert.rejects(throwing.run({ eachMessage: () => Promise.reject(new Error('mine')) }), /mine/);
  assert.equal((await throwing.next()).value.toString(), '2', 'the next one is not lost');
  await assert.rejects(throwing.run({}), /needs a handler/);
  await assert.rejects(throwing.run({ eachMessage: () => 1, eachBatch: () => 1 }), /needs a handler/);
});

test('seek by offset, time, beginning and end; position says what comes next', async () => {
  const t = await filled(Array.from({ length: 5 }, (_, number) => ({ value: String(number), timestamp: 1_000 * (number + 1) })));
  const consumer = client.consumer(t, { start: 'beginning' });
  const next = async () => (await consumer.next()).value.toString();
  assert.equal(await consumer.position(0), 0n);
  assert.deepEqual([await next(), await next(), await consumer.position(0)], ['0', '1', 2n]);
  await consumer.seek(4n);
  assert.deepEqual([await consumer.position(0), await next()], [4n, '4']);
  await consumer.seek(new Date(2_500));
  assert.deepEqual([await consumer.position(0), await next()], [2n, '2']);
  await consumer.seek({ timestampMs: 4_000 }, { partition: 0 });
  assert.equal(await next(), '3');
  await consumer.seek({ offset: 1 });
  assert.equal(await next(), '1');
  await consumer.seek('end');
  const late = consumer.next();
  await client.producer(t).send({ value: 'late' });
  assert.equal((await late).value.toString(), 'late');
  await assert.rejects(consumer.seek(99n), { code: 'offset_out_of_range', name: 'OffsetOutOfRangeError', range: { first: 0n, end: 6n } });
  assert.equal(await consumer.position(0), 6n, 'after an error nothing has changed');
  for (const wrong of [5, 'first', null, new Date(NaN), { offset: 1.5 }, {}]) await assert.rejects(consumer.seek(wrong), InvalidError);
  await assert.rejects(consumer.position(7), InvalidError);
  await assert.rejects(consumer.seek('end', { partition: 7 }), InvalidError);
});

test('a seek while a loop waits takes that loop along', async () => {
  const t = await filled(['a', 'b']);
  const consumer = client.consumer(t, { start: 'end' });
  await consumer.open();
  const waiting = consumer.next();
  await consumer.seek('beginning');
  assert.equal((await waiting).value.toString(), 'a');
});

test('a partition that is paused keeps its place, and the others go on', async () => {
  const t = await topic(2);
  const producer = client.producer(t);
  const rows = [0, 1, 2, 3].flatMap((number) => [0, 1].map((partition) => ({ partition, value: String(number) })));
  await producer.sendMany(rows);
  const consumer = client.consumer(t, { start: 'beginning' });
  const first = await consumer.next();
  await consumer.pause(first.partition);
  const others = [];
  while (others.length < 4) others.push(await consumer.next());
  assert.ok(others.every((message) => message.partition !== first.partition));
  const states = await consumer.partitions();
  assert.deepEqual(states.map((state) => [state.paused, state.position]), first.partition === 0 ? [[true, 1n], [false, 4n]] : [[false, 4n], [true, 1n]]);
  const waiting = consumer.next();
  await consumer.resume();
  const rest = [await waiting, await consumer.next(), await consumer.next()];
  assert.deepEqual(rest.map((message) => [message.partition, message.offset]), [1n, 2n, 3n].map((offset) => [first.partition, offset]));
  await assert.rejects(consumer.pause(9), InvalidError);
});

test('an aborted wait loses no record', async () => {
  const t = await topic();
  const producer = client.producer(t);
  const consumer = client.consumer(t, { start: 'beginning' });
  for (let number = 0; number < 20; number++) {
    const stop = new AbortController();
    const waiting = consumer.next({ signal: stop.signal });
    const sent = producer.send({ value: String(number) });
    // At another moment each time: before the record, beside it, behind it.
    for (let turn = 0; turn < number % 5; turn++) await new Promise(setImmediate);
    if (number % 5 === 4) await sent;
    stop.abort('enough');
    const outcome = await waiting.then((message) => message.value.toString(), (error) => {
      assert.ok(error instanceof AbortError);
      assert.deepEqual([error.name, error.code, error.cause], ['AbortError', 'ABORT_ERR', 'enough']);
      return consumer.next().then((message) => message.value.toString());
    });
    assert.equal(outcome, String(number));
    await sent;
  }
  const aborted = AbortSignal.abort();
  for (const call of [
    () => consumer.next({ signal: aborted }),
    () => consumer.open({ signal: aborted }),
    () => consumer.seek('end', { signal: aborted }),
    () => consumer.pause(0, { signal: aborted }),
    () => consumer.resume(0, { signal: aborted }),
    () => consumer.partitions({ signal: aborted }),
    () => producer.ready({ signal: aborted }),
    () => consumer.batches({ signal: aborted }).next(),
    () => consumer.stream({ signal: aborted }).toArray(),
    () => producer.send({ value: 'x' }, { signal: aborted }),
    () => producer.sendMany([{ value: 'x' }], { signal: aborted }),
    () => producer.flush({ signal: aborted }),
    () => client.admin.topics({ signal: aborted }),
    () => connect('millpond://localhost', { signal: aborted }),
  ]) await assert.rejects(call(), { name: 'AbortError' });
});

test('transforms: deploy, attach, roll back, logs, detach, delete', async () => {
  const t = await topic();
  const { transforms } = client.admin;
  const name = topicName('hot');
  const first = await transforms.deploy(name, plugin('drop-idle'));
  assert.deepEqual([first.name, first.version], [name, 1]);
  await transforms.deploy(name, plugin('hot'));
  await transforms.attach(t, name, { params: { limit: '80' }, onError: 'skip', limits: { timeMs: 500 } });
  const producer = client.producer(t, { value: json() });
  const places = await Promise.all([{ temperature: 90 }, { temperature: 20 }].map((value) => producer.send({ value })));
  assert.equal(places.every((place) => place.fate === 'stored-unless-dropped'), true);
  const [kept] = await read(client.consumer(t, all));
  assert.equal(kept.headers.text('alert'), 'hot');
  const info = await transforms.describe(name);
  assert.deepEqual([info.version, info.versions.length, info.versions[1].attached[0].topic], [2, 2, t]);
  assert.ok(info.versions[0].deployedAt instanceof Date);
  assert.equal((await client.admin.topic(t)).attachments[0].recordsDropped, 1);
  assert.deepEqual((await client.admin.topic(t)).attachments[0].params, { limit: '80' });
  await assert.rejects(transforms.delete(name), { name: 'InUseError', code: 'module_in_use' });
  const altered = await transforms.alter(t, `${name}@2`, { params: { limit: '70' }, limits: { timeMs: 400 } });
  assert.deepEqual([altered.params, altered.pinned, altered.onError], [{ limit: '70' }, true, 'skip']);
  const following = await transforms.alter(t, name, { followCurrent: true, defaultLimits: true });
  assert.notEqual(following.pinned, true);
  await assert.rejects(transforms.alter(t, name, { removeParams: ['nope'] }), /no parameter `nope`/);
  const log = await transforms.logs(name);
  assert.deepEqual(log.lines, []);
  assert.ok(log.next.every((place) => typeof place.log === 'bigint'));
  assert.deepEqual((await transforms.logs(name, { after: log.next })).lines, []);
  await transforms.detach(t, name);
  assert.equal((await transforms.rollback(name)).version, 1);
  assert.ok((await transforms.list()).some((module) => module.name === name));
  await transforms.delete(name);
  await assert.rejects(transforms.describe(name), { name: 'NotFoundError', code: 'module_not_found' });
  await assert.rejects(transforms.deploy(name, Buffer.from('no wasm')), { name: 'InvalidError', code: 'module_invalid' });
  await assert.rejects(transforms.deploy(name, 5), InvalidError);
});
