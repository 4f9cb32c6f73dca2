// Shows that the package that is installed beside this file works on its platform: the native half loads, and a broker (MILLPOND_BIN) stores what
// it sends and gives it back, in every compression. Run by check.sh.

import assert from 'node:assert/strict';
import { connect, string } from 'millpond';
import { broker } from 'millpond/testing';

const RECORDS = 2000;
const value = (number) => `{"device":"pump-${number % 7}","celsius":${number / 10}}`;

const own = await broker();
try {
  const client = await connect(own.url);
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const topic = `by-${compression}`;
    await client.admin.createTopic(topic, { partitions: 1 });
    const producer = client.producer(topic, { compression });
    await producer.sendMany(Array.from({ length: RECORDS }, (_, number) => ({ key: `${number % 7}`, value: value(number), headers: { unit: 'C' } })));
    await producer.flush();
    let seen = 0;
    for await (const m of client.consumer(topic, { start: 'beginning', untilEnd: true, key: string(), value: string() })) {
      assert.deepEqual([m.offset, m.key, m.value, m.headers.text('unit')], [BigInt(seen), `${seen % 7}`, value(seen), 'C']);
      seen++;
    }
    assert.equal(seen, RECORDS);
  }
  await assert.rejects(client.admin.topic('nowhere'), { code: 'topic_not_found' });
  await client.close();
} finally {
  await own.stop();
}
console.log(`Node.js ${process.version} on ${process.arch}: ${5 * RECORDS} records sent and read back`);
