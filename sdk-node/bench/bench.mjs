// Records a second to and from a broker of its own, in turns with the Rust client (`millpond bench` measures that): node bench/bench.mjs [MiB]

import { connect } from '../dist/index.mjs';
import { Broker } from '../test/support/broker.mjs';

const bytes = Number(process.argv[2] ?? 200) << 20;
const broker = await Broker.start();
const client = await connect(broker.url);
const results = [];

async function measure(size, what, work) {
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  let peak = before;
  const look = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 20);
  const start = process.hrtime.bigint();
  const count = await work();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  clearInterval(look);
  results.push({
    size,
    what,
    records_per_second: Math.round(count / seconds),
    mb_per_second: Math.round((count * size) / seconds / 1e6),
    rss_mib: Math.round(peak / 2 ** 20),
  });
}

for (const size of [1024, 100]) {
  const count = Math.floor((size === 100 ? bytes / 4 : bytes) / size);
  const value = Buffer.alloc(size, 'x');
  const record = { value };
  for (const topic of ['many', 'each']) await client.admin.createTopic(`${topic}-${size}`, { durability: 'os' });
  const many = client.producer(`many-${size}`);
  await measure(size, 'produce, sendMany', async () => {
    const records = function* () {
      for (let sent = 0; sent < count; sent++) yield record;
    };
    return (await many.sendMany(records())).length;
  });
  const each = client.producer(`each-${size}`);
  await measure(size, 'produce, send', async () => {
    for (let sent = 0; sent < count; sent++) {
      each.send(record);
      if (sent % 1000 === 0) await each.ready();
    }
    await each.flush();
    return count;
  });
  await measure(size, 'consume, for await', async () => {
    let seen = 0;
    for await (const message of client.consumer(`many-${size}`, { start: 'beginning', untilEnd: true })) seen += message.value.length === size ? 1 : 0;
    return seen;
  });
  await measure(size, 'consume, batches', async () => {
    let seen = 0;
    for await (const batch of client.consumer(`many-${size}`, { start: 'beginning', untilEnd: true }).batches()) {
      for (const message of batch) seen += message.value.length === size ? 1 : 0;
    }
    return seen;
  });
}
console.table(results);
await client.close();
await broker.stop();
