// Records a second to and from a broker of its own, beside the Rust client in the same run, and the memory that reading takes.
//
//   cargo build --release -p millpond -p millpond-cli --examples --bins
//   npm run bench [-- --rounds 5 --mib 200]
//
// Rounds take turns: the Rust client (sdk-rust/examples/throughput.rs), then this package, with the same records on topics with the same settings of the
// same broker. Each number is the median of its rounds. `1 GiB` is read by a process of its own, of which the most resident memory is told.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { connect } from '../dist/index.mjs';
import { binary, ownBroker } from '../test/support/broker.mjs';

const { values: flags } = parseArgs({
  options: { rounds: { type: 'string', default: '3' }, mib: { type: 'string', default: '200' }, size: { type: 'string' }, case: { type: 'string' } },
});
const rounds = Number(flags.rounds);
const bytes = Number(flags.mib) << 20;
const measured = new Map();

/** What each case is compared with. */
const BESIDE = {
  'produce: send': 'produce: Rust',
  'produce: sendMany': 'produce: Rust',
  'consume: for await': 'consume: Rust',
  'consume: batches': 'consume batches: Rust',
};

function note(size, what, recordsPerSecond) {
  const key = `${size} ${what}`;
  if (!measured.has(key)) measured.set(key, { size, what, all: [] });
  measured.get(key).all.push(recordsPerSecond);
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

async function timed(size, what, work) {
  if (flags.case && !what.includes(flags.case)) return;
  globalThis.gc?.();
  const start = process.hrtime.bigint();
  const count = await work();
  note(size, what, count / (Number(process.hrtime.bigint() - start) / 1e9));
}

const PRODUCE = {
  async sendMany(producer, record, count) {
    const records = function* () {
      for (let sent = 0; sent < count; sent++) yield record;
    };
    await producer.sendMany(records());
  },
  async send(producer, record, count) {
    for (let sent = 1; sent <= count; sent++) {
      producer.send(record);
      if (sent % 1000 === 0) await producer.ready();
    }
    await producer.flush();
  },
};

const CONSUME = {
  async 'for await'(consumer, size) {
    let seen = 0;
    for await (const message of consumer) seen += message.value.length === size ? 1 : 0;
    return seen;
  },
  async batches(consumer, size) {
    let seen = 0;
    for await (const batch of consumer.batches()) for (const message of batch) seen += message.value.length === size ? 1 : 0;
    return seen;
  },
};

async function node(broker, size, count, round) {
  const client = await connect(broker.url);
  const record = { value: Buffer.alloc(size, 'x') };
  for (const [name, produce] of Object.entries(PRODUCE)) {
    const topic = `${name}-${size}-${round}`;
    await client.admin.createTopic(topic, { durability: 'os' });
    await timed(size, `produce: ${name}`, async () => {
      const producer = client.producer(topic);
      await produce(producer, record, count);
      await producer.close();
      return count;
    });
    await client.admin.deleteTopic(topic);
  }
  for (const [name, consume] of Object.entries(CONSUME)) {
    await timed(size, `consume: ${name}`, async () => {
      const seen = await consume(client.consumer(`rust-${size}-${round}`, { start: 'beginning', untilEnd: true }), size);
      if (seen !== count) throw new Error(`${seen} of ${count} records`);
      return seen;
    });
  }
  await client.close();
}

async function rust(broker, client, size, count, round) {
  const topic = `rust-${size}-${round}`;
  await client.admin.createTopic(topic, { durability: 'os' });
  const program = join(dirname(binary()), 'examples', 'throughput');
  if (!existsSync(program)) throw new Error(`${program} is not built: cargo build --release -p millpond --example throughput`);
  const { stdout, stderr } = spawnSync(program, [broker.url, topic, String(count), String(size)], { encoding: 'utf8' });
  if (!stdout) throw new Error(stderr);
  for (const [name, rate] of Object.entries(JSON.parse(stdout))) note(size, `${name}: Rust`, rate);
}

/** The most resident memory of a process that reads a topic, in MiB. */
function memory(url, topic) {
  const program = `
    import { connect } from ${JSON.stringify(new URL('../dist/index.mjs', import.meta.url).href)};
    const client = await connect(${JSON.stringify(url)});
    const before = process.memoryUsage.rss();
    let bytes = 0;
    for await (const message of client.consumer(${JSON.stringify(topic)}, { start: 'beginning', untilEnd: true })) bytes += message.value.length;
    await client.close();
    console.log(JSON.stringify({ read_mib: bytes >> 20, before_mib: before >> 20, most_mib: process.resourceUsage().maxRSS >> 10 }));`;
  return JSON.parse(spawnSync(process.execPath, ['--input-type=module', '--eval', program], { encoding: 'utf8' }).stdout);
}

const broker = await ownBroker();
const client = await connect(broker.url);
for (let round = 0; round < rounds; round++) {
  for (const size of flags.size ? [Number(flags.size)] : [1024, 100]) {
    const count = Math.floor((size < 1024 ? bytes / 4 : bytes) / size);
    await rust(broker, client, size, count, round);
    await node(broker, size, count, round);
    await client.admin.deleteTopic(`rust-${size}-${round}`);
  }
}
const rows = [...measured.values()].map(({ size, what, all }) => {
  const rate = median(all);
  const beside = measured.get(`${size} ${BESIDE[what]}`);
  return {
    size,
    what,
    'records/s': Math.round(rate),
    'MB/s': Math.round((rate * size) / 1e6),
    'of Rust': beside ? Number((rate / median(beside.all)).toFixed(2)) : undefined,
    'of rounds': all.map((one) => Math.round(one / 1000)).join(' ') + ' k/s',
  };
});
console.table(rows);

if (flags.case) process.exit();
await client.admin.createTopic('gigabyte', { durability: 'os' });
const value = Buffer.alloc(1024, 'x');
await client.producer('gigabyte').sendMany(
  (function* () {
    for (let sent = 0; sent < 1 << 20; sent++) yield { value };
  })(),
);
console.log('reading 1 GiB:', memory(broker.url, 'gigabyte'));
await client.close();
await broker.stop();
