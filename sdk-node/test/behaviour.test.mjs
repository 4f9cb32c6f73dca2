// The cases that the clients of all languages pass: tests/behaviour/clients.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import * as millpond from 'millpond';
import { broker, plugin } from './support/broker.mjs';

const folder = new URL('../../tests/behaviour/clients/', import.meta.url);

const CLASSES = {
  already_exists: 'AlreadyExistsError',
  closed: 'ClosedError',
  guest: 'TransformError',
  in_use: 'InUseError',
  invalid: 'InvalidError',
  not_found: 'NotFoundError',
  out_of_range: 'OffsetOutOfRangeError',
  too_large: 'TooLargeError',
};

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const camelKeys = (object = {}) => Object.fromEntries(Object.entries(object).map(([name, value]) => [camel(name), value]));
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Names as the cases have them, offsets as numbers. */
function plain(value) {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [snake(name), plain(inner)]));
}

function bytes(given) {
  if (given === null || given === undefined || typeof given === 'string') return given;
  if ('hex' in given) return Buffer.from(given.hex, 'hex');
  return given.text.repeat(given.times);
}

function place(given) {
  if (typeof given === 'string') return given;
  return 'offset' in given ? BigInt(given.offset) : new Date(given.timestamp_ms);
}

function records(step) {
  return step.records.flatMap(({ key, value, headers, timestamp_ms: timestamp, partition, repeat = 1 }) => {
    const record = { key: bytes(key), value: bytes(value), headers: headers?.map(([name, of]) => [name, bytes(of)]), timestamp, partition };
    return Array.from({ length: repeat }, () => record);
  });
}

const placed = ({ partition, offset, fate }) => ({ partition, offset: Number(offset), fate });

/** Bytes as text where they are text that is written as it was read. */
function shown(given) {
  if (given === null) return null;
  const text = given.toString('utf8');
  return Buffer.from(text).equals(given) ? text : { hex: given.toString('hex') };
}

const shownRecord = (message) => ({
  partition: message.partition,
  offset: Number(message.offset),
  timestamp_ms: message.timestampMs,
  key: shown(message.key),
  value: shown(message.value),
  headers: [...message.headers].map(([name, value]) => [name, shown(value)]),
});

const byPlace = (a, b) => a.partition - b.partition || a.offset - b.offset;

/** Does the steps of one case. */
class Runner {
  #named = new Map();
  #producers = new Map();

  constructor(client) {
    this.client = client;
  }

  #producer({ producer, topic }) {
    if (producer !== undefined) return this.#named.get(producer);
    if (!this.#producers.has(topic)) this.#producers.set(topic, this.client.producer(topic));
    return this.#producers.get(topic);
  }

  #consumer(step) {
    return this.#named.get(step.consumer);
  }

  create_topic = ({ topic, partitions, config }) => this.client.admin.createTopic(topic, { partitions, ...camelKeys(config) });
  alter_topic = async ({ topic, config }) => plain((await this.client.admin.alterTopic(topic, camelKeys(config))).config);
  delete_topic = ({ topic }) => this.client.admin.deleteTopic(topic);
  describe_topic = async ({ topic }) => plain(await this.client.admin.topic(topic));
  delete_records = async ({ topic, partition, before }) => Number(await this.client.admin.deleteRecords(topic, partition, place(before)));
  list_offset = async ({ topic, partition, at }) => Number((await this.client.admin.listOffset(topic, partition, place(at))).offset);

  producer = ({ as, topic, options }) => void this.#named.set(as, this.client.producer(topic, camelKeys(options)));
  send = async (step) => Array.from(await this.#producer(step).sendMany(records(step)), placed);
  send_each = async (step) => {
    const outcomes = await Promise.allSettled(records(step).map((record) => this.#producer(step).send(record)));
    return outcomes.map((outcome) => (outcome.status === 'fulfilled' ? placed(outcome.value) : outcome.reason));
  };
  flush = (step) => this.#producer(step).flush();

  consumer = async ({ as, topic, options = {} }) => {
    const given = camelKeys(options);
    if (options.start !== undefined) given.start = place(options.start);
    const consumer = this.client.consumer(topic, given);
    this.#named.set(as, consumer);
    await consumer.open();
  };
  read = async (step) => {
    const seen = [];
    while (seen.length < step.count) seen.push(shownRecord(await this.#consumer(step).next()));
    return step.sorted ? seen.sort(byPlace) : seen;
  };
  read_to_end = async (step) => {
    const seen = [];
    for await (const message of this.#consumer(step)) seen.push(shownRecord(message));
    return step.sorted ? seen.sort(byPlace) : seen;
  };
  read_batches = async (step) => {
    const sizes = [];
    for await (const batch of this.#consumer(step).batches({ maxRecords: step.max_records, maxWaitMs: 10_000 })) sizes.push(batch.length);
    return sizes;
  };
  seek = (step) => this.#consumer(step).seek(place(step.to), { partition: step.partition });
  pause = (step) => this.#consumer(step).pause(step.partition);
  resume = (step) => this.#consumer(step).resume(step.partition);
  position = async (step) => Number(await this.#consumer(step).position(step.partition));

  deploy = async ({ module, plugin: name }) => plain(await this.client.admin.transforms.deploy(module, plugin(name)));
  attach = async ({ topic, module, on, view, params, limits, on_error: onError, derive }) => {
    const into = derive && { ...camelKeys(derive), start: derive.start && place(derive.start) };
    await this.client.admin.transforms.attach(topic, module, { on, view, params, limits: limits && camelKeys(limits), onError, derive: into });
  };
  detach = ({ topic, module, on, view }) => this.client.admin.transforms.detach(topic, module, { on, view });
  rollback = async ({ module, to }) => plain(await this.client.admin.transforms.rollback(module, { to }));
  describe_module = async ({ module }) => plain(await this.client.admin.transforms.describe(module));
  delete_module = ({ module }) => this.client.admin.transforms.delete(module);
  module_log = async ({ module, topic }) => plain((await this.client.admin.transforms.logs(module, { topic })).lines);

  close = ({ what }) => (what === 'client' ? this.client : this.#named.get(what)).close();
}

/** What every step may have; the others belong to one kind of step. */
const COMMON = ['do', 'sees', 'fails'];
const FIELDS = {
  create_topic: ['topic', 'partitions', 'config'],
  alter_topic: ['topic', 'config'],
  delete_topic: ['topic'],
  describe_topic: ['topic'],
  delete_records: ['topic', 'partition', 'before'],
  list_offset: ['topic', 'partition', 'at'],
  producer: ['as', 'topic', 'options'],
  send: ['producer', 'topic', 'records'],
  send_each: ['producer', 'topic', 'records'],
  flush: ['producer', 'topic'],
  consumer: ['as', 'topic', 'options'],
  read: ['consumer', 'count', 'sorted'],
  read_to_end: ['consumer', 'sorted'],
  read_batches: ['consumer', 'max_records'],
  seek: ['consumer', 'to', 'partition'],
  pause: ['consumer', 'partition'],
  resume: ['consumer', 'partition'],
  position: ['consumer', 'partition'],
  deploy: ['module', 'plugin'],
  attach: ['topic', 'module', 'on', 'view', 'params', 'limits', 'on_error', 'derive'],
  detach: ['topic', 'module', 'on', 'view'],
  rollback: ['module', 'to'],
  describe_module: ['module'],
  delete_module: ['module'],
  module_log: ['module', 'topic'],
  close: ['what'],
};

function checkFailure(error, { code, kind }, at) {
  assert.ok(error instanceof millpond.MillpondError, `${at}: it must fail with ${code}, and there is ${error}`);
  assert.equal(error.code, code, `${at}: ${error.message}`);
  assert.ok(error instanceof millpond[CLASSES[kind]], `${at}: the class of ${code} is ${error.name}`);
}

/** Only what is named is compared, and lists whole. */
function check(actual, expected, at) {
  if (Array.isArray(expected)) {
    assert.ok(Array.isArray(actual), `${at}: a list`);
    assert.equal(actual.length, expected.length, `${at}: ${JSON.stringify(actual)}`);
    expected.forEach((inner, index) => check(actual[index], inner, `${at}[${index}]`));
  } else if (expected !== null && typeof expected === 'object') {
    if (expected.fails) return checkFailure(actual, expected.fails, at);
    for (const [name, inner] of Object.entries(expected)) check(actual?.[name], inner, `${at}.${name}`);
  } else assert.deepEqual(actual, expected, at);
}

const cases = readdirSync(folder).filter((name) => name.endsWith('.json'));
assert.ok(cases.length > 15, 'the cases are where they are looked for');

for (const name of cases) {
  test(name, async () => {
    const { steps } = JSON.parse(readFileSync(new URL(name, folder), 'utf8'));
    const client = await millpond.connect((await broker()).url);
    const runner = new Runner(client);
    for (const [number, step] of steps.entries()) {
      const at = `${name}, step ${number + 1} (${step.do})`;
      assert.ok(FIELDS[step.do], `${at}: there is no such step`);
      for (const field of Object.keys(step)) assert.ok([...COMMON, ...FIELDS[step.do]].includes(field), `${at}: it has no field ${field}`);
      let answer;
      try {
        answer = await runner[step.do](step);
      } catch (error) {
        if (!step.fails) throw new Error(`${at}: ${error.message}`, { cause: error });
        checkFailure(error, step.fails, at);
        continue;
      }
      assert.ok(!step.fails, `${at}: it must fail with ${step.fails?.code}`);
      if (step.sees !== undefined) check(answer, step.sees, at);
    }
    // What a case was to be told, it was told.
    await client.close().catch(() => undefined);
  });
}
