// Wrong addresses, brokers that are gone, closed clients: a clear typed error, or recovery.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as millpond from 'millpond';
import { broker, freePort, ownBroker, topicName } from './support/broker.mjs';

const { connect, MillpondError } = millpond;

let shared, client;
before(async () => {
  shared = await broker();
  client = await connect(shared.url);
});
after(() => client.close());

/** An assertion about an error: its class, its code, whether to try again, and words of its message or hint. */
function isError(name, code, words = /./, retryable = false) {
  return (error) => {
    assert.ok(error instanceof MillpondError, `${error}`);
    assert.ok(error instanceof millpond[name], `${error.name}: ${error.message}`);
    assert.deepEqual([error.name, error.code, error.retryable], [name, code, retryable], error.message);
    assert.match(`${error.message} ${error.hint}`, words);
    return true;
  };
}

async function topic(partitions = 1, options = {}) {
  const name = topicName();
  await client.admin.createTopic(name, { partitions, ...options });
  return name;
}

test('a wrong address says what one looks like', async () => {
  for (const url of ['', 'localhost:9440', 'http://localhost', 'millpond://', 'millpond://localhost:99999', 'millpond://localhost?fp=md5:5']) {
    await assert.rejects(connect(url), isError('InvalidError', 'invalid_url', /millpond:\/\/localhost:9440/));
  }
  await assert.rejects(connect(5), isError('WrongTypeError', 'wrong_type', /a number/));
  await assert.rejects(connect('millpond://localhost', { fingerprint: 'sha256:5' }), isError('InvalidError', 'invalid_setting', /64 hex digits/));
  await assert.rejects(connect('millpond://localhost', { caFile: '/nowhere.pem' }), isError('InvalidError', 'ca_file_unusable', /PEM/));
});

test('a setting that is not known is refused with the nearest one, in the names of this package', async () => {
  await assert.rejects(connect(shared.url, { connectTimeout: 5 }), (error) => {
    assert.match(error.message, /`connectTimeout` is no setting|connectTimeoutMs/);
    return isError('InvalidError', 'invalid_setting', /did you mean `connectTimeoutMs`/)(error);
  });
  assert.throws(() => client.producer('t', { lingerMs: 'soon' }), isError('InvalidError', 'invalid_setting', /`lingerMs` of a producer cannot be "soon"/));
  assert.throws(() => client.producer('t', { compression: 'zip' }), isError('InvalidError', 'invalid_setting', /zstd/));
  assert.throws(() => client.consumer('t', { untilTheEnd: true }), isError('InvalidError', 'invalid_setting', /untilEnd/));
  assert.throws(() => client.consumer('t', { onOutOfRange: 'first' }), isError('InvalidError', 'invalid_setting', /onOutOfRange/));
  assert.throws(() => client.consumer('t', { start: 5 }), isError('WrongTypeError', 'wrong_type', /a Date/));
  assert.throws(() => client.consumer('t', { offsets: 5 }), isError('WrongTypeError', 'wrong_type', /a Map, or an object/));
  assert.throws(() => client.consumer('t', { offsets: { 0: '5' } }), isError('WrongTypeError', 'wrong_type', /offset of partition 0/));
  assert.throws(() => client.consumer('t', { offsets: { '-1': 5 } }), isError('WrongTypeError', 'wrong_type', /no partition/));
  assert.throws(() => client.consumer('t', { offsets: new Map([[5_000_000_000, 5n]]) }), isError('InvalidError', 'invalid_setting', /offsets/));
  assert.throws(() => client.consumer('t', null), isError('WrongTypeError', 'wrong_type'));
  assert.throws(() => client.producer(5), isError('WrongTypeError', 'wrong_type', /a topic is a string/));
  assert.throws(() => client.producer('t', { inFlight: 6 }), isError('InvalidError', 'invalid_setting', /idempotence/));
  assert.throws(() => client.producer('t', { bufferBytes: 2 ** 32 }), isError('InvalidError', 'invalid_setting', /2 GiB/));
  await assert.rejects(client.admin.createTopic('t', { retention: 5 }), isError('InvalidError', 'invalid_setting', /retention/));
  await assert.rejects(client.admin.createTopic('t', { durability: 'never' }), isError('InvalidError', 'invalid_setting', /interval:200ms/));
  await assert.rejects(client.admin.createTopic('t', { ifExists: 'maybe' }), isError('InvalidError', 'invalid_setting'));
});

test('a wrong fingerprint is not the broker that was meant', async () => {
  const wrong = shared.url.replace(/fp=sha256:.{4}/, 'fp=sha256:0000');
  await assert.rejects(connect(wrong), isError('DeniedError', 'fingerprint_mismatch', /<data-dir>\/url/));
  await assert.rejects(connect(shared.url.replace(/\?.*/, '')), { name: /DeniedError|InvalidError/, code: /certificate_untrusted|no_system_roots/ });
});

test('a wrong port, with nobody there, with something else there, and with somebody who says nothing', async () => {
  const nobody = `millpond://127.0.0.1:${await freePort()}?fp=sha256:${'0'.repeat(64)}`;
  await assert.rejects(connect(nobody), isError('ConnectionError', 'connect_failed', /nobody listens there.*is `millpond serve` running there/, true));
  const silent = createSocket('udp4').bind(0, '127.0.0.1');
  await once(silent, 'listening');
  const url = `millpond://127.0.0.1:${silent.address().port}?fp=sha256:${'0'.repeat(64)}`;
  await assert.rejects(connect(url, { connectTimeoutMs: 50 }), isError('ConnectionError', 'connect_failed', /no answer within 50ms/, true));
  const stop = new AbortController();
  const aborted = connect(url, { signal: stop.signal });
  stop.abort();
  await assert.rejects(aborted, isError('AbortError', 'ABORT_ERR'));
  silent.close();
});

test('topics: there already, not there, a name that cannot be, partitions that are not there', async () => {
  const t = await topic();
  await assert.rejects(client.admin.createTopic(t), isError('AlreadyExistsError', 'topic_exists'));
  assert.equal((await client.admin.createTopic(t, { ifExists: 'ok' })).name, t);
  await assert.rejects(client.admin.createTopic('no spaces'), isError('InvalidError', 'invalid_topic'));
  await assert.rejects(client.admin.createTopic('none', { partitions: 0 }), isError('InvalidError', 'invalid_topic'));
  const missing = topicName('missing');
  for (const call of [
    () => client.admin.topic(missing),
    () => client.admin.deleteTopic(missing),
    () => client.producer(missing).send({ value: 'x' }),
    () => client.producer(missing).sendMany([{ value: 'x' }]),
    () => client.consumer(missing).next(),
    () => client.consumer(missing).open(),
    () => client.consumer(missing).batches().next(),
    () => client.consumer(missing).stream().toArray(),
    () => client.consumer(missing).run({ eachMessage: () => undefined }),
    () => client.consumer(missing)[Symbol.asyncIterator]().next(),
  ]) await assert.rejects(call(), isError('NotFoundError', 'topic_not_found'));
  await assert.rejects(client.consumer(t, { partitions: [0, 3] }).next(), isError('InvalidError', 'partition_out_of_range', /from 0 to 0/));
  await assert.rejects(client.producer(t).send({ value: 'x', partition: 3 }), isError('InvalidError', 'partition_out_of_range'));
  await assert.rejects(client.consumer(t, { view: 'v' }).next(), isError('NotFoundError', 'view_not_found'));
});

test('an offset that retention has passed: an error with the range, the first record, or the next one', async () => {
  const t = await topic();
  const producer = client.producer(t);
  await producer.sendMany(['a', 'b', 'c'].map((value) => ({ value })));
  assert.equal(await client.admin.deleteRecords(t, 0, 2n), 2n);
  const at = (onOutOfRange) => client.consumer(t, { start: 0n, onOutOfRange });
  for (const policy of ['error', undefined]) {
    await assert.rejects(at(policy).next(), (error) => {
      assert.deepEqual(error.range, { first: 2n, end: 3n });
      return isError('OffsetOutOfRangeError', 'offset_out_of_range')(error);
    });
  }
  assert.equal((await at('earliest').next()).value.toString(), 'c');
  const latest = at('latest');
  await latest.open();
  await producer.send({ value: 'd' });
  assert.equal((await latest.next()).value.toString(), 'd');
});

test('a topic that is deleted while it is read and written', async () => {
  const t = await topic();
  const producer = client.producer(t);
  const consumer = client.consumer(t, { start: 'beginning' });
  await producer.send({ value: 'x' });
  await consumer.next();
  const waiting = assert.rejects(consumer.next(), isError('NotFoundError', 'topic_not_found'));
  await client.admin.deleteTopic(t);
  await waiting;
  await assert.rejects(producer.send({ value: 'y' }), isError('NotFoundError', 'topic_not_found'));
  await assert.rejects(consumer.next(), isError('NotFoundError', 'topic_not_found'), 'that is no normal end');
});

test('what is closed says so, in every call, and may be closed again', async () => {
  const t = await topic();
  const own = await connect(shared.url);
  const producer = own.producer(t);
  const consumer = own.consumer(t);
  const isClosed = isError('ClosedError', 'closed');
  await producer.send({ value: 'x' });
  await consumer.open();
  const waiting = consumer.next();
  await producer.close();
  await producer.close();
  await assert.rejects(producer.send({ value: 'x' }), isClosed);
  await assert.rejects(producer.sendMany([{ value: 'x' }]), isClosed);
  await consumer.close();
  await consumer.close();
  assert.equal(await waiting, undefined, 'who waits is let go');
  assert.throws(() => consumer[Symbol.asyncIterator](), isClosed);
  for (const call of [
    () => consumer.next(),
    () => consumer.open(),
    () => consumer.seek('end'),
    () => consumer.pause(),
    () => consumer.resume(),
    () => consumer.position(0),
    () => consumer.batches().next(),
    () => consumer.run({ eachMessage: () => undefined }),
  ]) await assert.rejects(call(), isClosed);
  assert.throws(() => consumer.stream(), isClosed);
  const open = own.consumer(t);
  const loop = open.next();
  await own.close();
  await own.close();
  assert.equal(await loop, undefined);
  assert.throws(() => own.producer(t), isClosed);
  assert.throws(() => own.consumer(t), isClosed);
  await assert.rejects(own.admin.topics(), isClosed);
  await assert.rejects(open.next(), isClosed);
});

test('Symbol.asyncDispose closes', async () => {
  const t = await topic();
  const own = await connect(shared.url);
  const producer = own.producer(t);
  const consumer = own.consumer(t);
  const sent = producer.send({ value: 'x' });
  for (const thing of [producer, consumer, own]) await thing[Symbol.asyncDispose]();
  assert.equal((await sent).offset, 0n, 'what was sent before is stored');
  assert.throws(() => own.producer(t), { code: 'closed' });
});

test('a broker that is killed and comes back: nothing is lost, nothing is told twice', async () => {
  const own = await ownBroker();
  const c = await connect(own.url);
  await c.admin.createTopic('t');
  const producer = c.producer('t');
  const consumer = c.consumer('t', { start: 'beginning' });
  await producer.send({ value: '0' });
  assert.equal((await consumer.next()).offset, 0n);
  const waiting = consumer.next();
  await own.kill();
  const sent = Array.from({ length: 50 }, (_, number) => producer.send({ value: String(number + 1) }));
  const topics = c.admin.topics();
  await own.start();
  assert.deepEqual((await topics).map((found) => found.name), ['t']);
  assert.deepEqual((await Promise.all(sent)).map((place) => place.offset), Array.from({ length: 50 }, (_, number) => BigInt(number + 1)));
  const seen = [await waiting];
  while (seen.length < 50) seen.push(await consumer.next());
  assert.deepEqual(seen.map((message) => Number(message.value)), Array.from({ length: 50 }, (_, number) => number + 1));
  await c.close();
  await own.stop();
});

test('a broker that stays away: times that were given hold, and a client can be closed', async () => {
  const own = await ownBroker();
  const c = await connect(own.url, { requestTimeoutMs: 150 });
  await c.admin.createTopic('t');
  const short = c.producer('t', { deliveryTimeoutMs: 150 });
  const long = c.producer('t');
  await short.send({ value: 'x' });
  await long.send({ value: 'x' });
  const consumer = c.consumer('t', { start: 'end' });
  await consumer.open();
  await own.kill();
  const waiting = consumer.next();
  await assert.rejects(short.send({ value: 'y' }), isError('TimeoutError', 'timed_out', /150ms/, true));
  await assert.rejects(c.admin.topics(), isError('TimeoutError', 'timed_out', /listing topics took longer than 150ms/, true));
  // What went wrong last is told in the message, in brackets, and is the cause.
  const timedOut = await c.admin.topics().catch((error) => error);
  assert.equal(timedOut.cause instanceof MillpondError && timedOut.message.includes(`(${timedOut.cause.message})`), / \(/.test(timedOut.message), timedOut.message);
  const never = long.send({ value: 'z' });
  await assert.rejects(c.close({ timeoutMs: 50 }), isError('TimeoutError', 'timed_out', /before the broker had answered/));
  await assert.rejects(never, isError('ClosedError', 'closed'));
  assert.equal(await waiting, undefined);
  await own.stop();
});

test('a broker that stands still (SIGSTOP) and goes on', async () => {
  const own = await ownBroker();
  const c = await connect(own.url, { idleTimeoutMs: 300, requestTimeoutMs: 200 });
  await c.admin.createTopic('t');
  const producer = c.producer('t');
  await producer.send({ value: 'a' });
  await own.freeze();
  const sent = producer.send({ value: 'b' });
  await assert.rejects(c.admin.topics(), { name: 'TimeoutError', code: 'timed_out', retryable: true });
  own.thaw();
  assert.equal((await sent).offset, 1n);
  assert.equal((await c.admin.topic('t')).partitions[0].highWatermark, 2n);
  await c.close();
  await own.stop();
});

test('a CA file is another way to trust', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millpond-ca-'));
  const url = shared.url.replace('127.0.0.1', 'localhost').replace(/\?.*/, '');
  const c = await connect(url, { caFile: join(shared.folder, 'data', 'tls', 'ca.pem') });
  assert.equal(c.isConnected, true);
  await c.close();
  writeFileSync(join(folder, 'empty.pem'), 'no certificate');
  await assert.rejects(connect(url, { caFile: join(folder, 'empty.pem') }), isError('InvalidError', 'ca_file_unusable'));
  rmSync(folder, { recursive: true });
});
