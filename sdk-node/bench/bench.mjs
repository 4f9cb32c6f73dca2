// Records a second to and from a broker of its own, beside the Rust client in the same run, and the memory that reading takes.
//
//   npm run bench [-- --rounds 3 --mib 200]
//
// Rounds take turns: this package, then `millpond bench` with the Rust client, on the same machine with the same settings of topic and broker. Each
// number is the median of its rounds. `1 GiB` is read by a process of its own, of which the most resident memory is told.

import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { connect } from '../dist/index.mjs';
import { binary, ownBroker } from '../test/support/broker.mjs';

const { values: flags } = parseArgs({ options: { rounds: { type: 'string', default: '3' }, mib: { type: 'string', default: '200' } } });
const rounds = Number(flags.rounds);
const bytes = Number(flags.mib) << 20;
const measured = new Map();

function note(size, what, recordsPerSecond) {
  const key = `${size} ${what}`;
  if (!measured.has(key)) measured.set(key, { size, what, all: [] });
  measured.get(key).all.push(recordsPerSecond);
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

async function timed(size, what, work) {
  globalThis.gc?.();
  const start = process.hrtime.bigint();
  const count = await work();
  note(size, what, count / (Number(process.hrtime.bigint() - start) / 1e9));
}

async function node(client, round) {
  for (const size of [1024, 100]) {
    const count = Math.floor((size === 100 ? bytes / 4 : bytes) / size);
    const record = { value: Buffer.alloc(size, 'x') };
    const [many, each] = ['many', 'each'].map((name) => `${name}-${size}-${round}`);
    for (const topic of [many, each]) await client.admin.createTopic(topic, { durability: 'os' });
    const manyProducer = client.producer(many);
    await manyProducer.sendMany([record]);
    await timed(size, 'produce: sendMany', async () => {
      const records = function* () {
        for (let sent = 0; sent < count; sent++) yield record;
      };
      return (await manyProducer.sendMany(records())).length;
    });
    const eachProducer = client.producer(each);
    await eachProducer.send(record);
    await timed(size, 'produce: send', async () => {
      for (let sent = 1; sent <= count; sent++) {
        eachProducer.send(record);
        if (sent % 1000 === 0) await eachProducer.ready();
      }
      await eachProducer.flush();
      return count;
    });
    const all = { start: 'beginning', untilEnd: true };
    await timed(size, 'consume: for await', async () => {
      let seen = 0;
      for await (const message of client.consumer(many, all)) seen += message.value.length === size ? 1 : 0;
      return seen;
    });
    await timed(size, 'consume: batches', async () => {
      let seen = 0;
      for await (const batch of client.consumer(many, all).batches()) for (const message of batch) seen += message.value.length === size ? 1 : 0;
      return seen;
    });
    for (const topic of [many, each]) await client.admin.deleteTopic(topic);
  }
}

const RUST = { produce_1k_os: [1024, 'produce: Rust'], consume_1k: [1024, 'consume: Rust'], produce_100b_os: [100, 'produce: Rust'] };

function rust() {
  const cases = Object.keys(RUST).flatMap((name) => ['--only', name]);
  const { stdout } = spawnSync(binary(), ['bench', '--quick', '-o', 'json', ...cases], { encoding: 'utf8' });
  for (const { name, records_s } of JSON.parse(stdout).results) note(...RUST[name], records_s);
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
  await node(client, round);
  rust();
}
const rows = [...measured.values()].map(({ size, what, all }) => {
  const rate = median(all);
  const beside = measured.get(`${size} ${what.replace(/:.*/, ': Rust')}`);
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
