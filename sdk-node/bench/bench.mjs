// Records a second to and from a broker of its own, beside the Rust client in the same run, and the memory that reading takes.
//
//   cargo build --release -p millpond -p millpond-cli --examples --bins
//   npm run bench [-- --rounds 5 --mib 200]
//
// Each case takes turns with the Rust client (sdk-rust/examples/throughput.rs), one right behind the other, with the same records on topics with the same
// settings of the same broker; every other round begins with the other one. A ratio is that of one turn, and what is told is the median of all
// rounds: these machines are noisy. `1 GiB` is read by a process of its own, of which the most resident memory is told.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { connect } from '../dist/index.mjs';
import { binary, ownBroker } from '../test/support/broker.mjs';

const { values: flags } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, mib: { type: 'string', default: '200' }, size: { type: 'string' }, case: { type: 'string' } },
});
const rounds = Number(flags.rounds);
const bytes = Number(flags.mib) << 20;
const program = join(dirname(binary()), 'examples', 'throughput');
const rows = [];

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Records a second of the Rust client. */
function rust(url, topic, { count, size }, work) {
  const { stdout, stderr } = spawnSync(program, [url, topic, String(count), String(size), work], { encoding: 'utf8' });
  if (!stdout) throw new Error(stderr);
  return Number(stdout);
}

/** Records a second of some work of this package. */
async function timed(count, work) {
  globalThis.gc?.();
  const start = process.hrtime.bigint();
  await work();
  return count / (Number(process.hrtime.bigint() - start) / 1e9);
}

/** All rounds of one case: `beside` is the Rust client's turn, `own` that of this package. */
async function inTurns(what, size, beside, own) {
  if (flags.case && !what.includes(flags.case)) return;
  const turns = [];
  for (let round = 0; round < rounds; round++) {
    const turn = round % 2 ? { rust: await beside(), own: await own() } : { own: await own(), rust: await beside() };
    turns.push(turn);
  }
  const ratios = turns.map((turn) => turn.own / turn.rust);
  const rate = median(turns.map((turn) => turn.own));
  rows.push({
    size,
    what,
    'records/s': Math.round(rate),
    'MB/s': Math.round((rate * size) / 1e6),
    'Rust records/s': Math.round(median(turns.map((turn) => turn.rust))),
    'of Rust': Number(median(ratios).toFixed(2)),
    'of rounds': ratios.map((ratio) => ratio.toFixed(2)).join(' '),
  });
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

/** Rust's work that each case is compared with. */
const BESIDE = { 'for await': 'consume', batches: 'batches' };

async function produceCases(broker, client, load) {
  const { size, count } = load;
  const record = { value: Buffer.alloc(size, 'x') };
  /** On a topic that is made for it, and deleted at once. */
  const onTopic = async (work) => {
    await client.admin.createTopic('produce', { durability: 'os' });
    const rate = await work('produce');
    await client.admin.deleteTopic('produce');
    return rate;
  };
  for (const [name, produce] of Object.entries(PRODUCE)) {
    const own = (topic) =>
      timed(count, async () => {
        const producer = client.producer(topic);
        await produce(producer, record, count);
        await producer.close();
      });
    const beside = () => onTopic((topic) => rust(broker.url, topic, load, 'produce'));
    await inTurns(`produce: ${name}`, size, beside, () => onTopic(own));
  }
}

async function consumeCases(broker, client, load) {
  const { size, count } = load;
  const topic = `consume-${size}`;
  await client.admin.createTopic(topic, { durability: 'os' });
  rust(broker.url, topic, load, 'produce');
  for (const [name, consume] of Object.entries(CONSUME)) {
    const own = () =>
      timed(count, async () => {
        const seen = await consume(client.consumer(topic, { start: 'beginning', untilEnd: true }), size);
        if (seen !== count) throw new Error(`${seen} of ${count} records`);
      });
    await inTurns(`consume: ${name}`, size, () => rust(broker.url, topic, load, BESIDE[name]), own);
  }
  await client.admin.deleteTopic(topic);
}

/** The most resident memory of a process that reads a topic, in MiB. */
function memory(url, topic) {
  const script = `
    import { readFileSync } from 'node:fs';
    import { connect } from ${JSON.stringify(new URL('../dist/index.mjs', import.meta.url).href)};
    const client = await connect(${JSON.stringify(url)});
    const before = process.memoryUsage.rss();
    let bytes = 0;
    for await (const message of client.consumer(${JSON.stringify(topic)}, { start: 'beginning', untilEnd: true })) bytes += message.value.length;
    await client.close();
    // Not resourceUsage, which begins with what the process that started this one had.
    const most = Number(/VmHWM:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) >> 10;
    console.log(JSON.stringify({ read_mib: bytes >> 20, before_mib: before >> 20, most_mib: most }));`;
  return JSON.parse(spawnSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }).stdout);
}

if (!existsSync(program)) throw new Error(`${program} is not built: cargo build --release -p millpond --example throughput`);
const broker = await ownBroker();
const client = await connect(broker.url);
for (const size of flags.size ? [Number(flags.size)] : [1024, 100]) {
  const load = { size, count: Math.floor((size < 1024 ? bytes / 4 : bytes) / size) };
  await produceCases(broker, client, load);
  await consumeCases(broker, client, load);
}
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
