// Keys keep the records of a device together and in order; headers say more about a record without touching its value.

import { connect, string } from 'millpond';

const client = await connect();
await client.admin.createTopic('readings', { partitions: 4, ifExists: 'ok' });
const producer = client.producer('readings');
const places = await producer.sendMany([
  { key: 'device-7', value: '21.4', headers: { unit: 'C', site: 'north' } },
  { key: 'device-7', value: '21.5', headers: { unit: 'C' } },
  // Pairs, where a name occurs more than once.
  { key: 'device-7', value: '70.5', headers: [['unit', 'F'], ['tag', 'a'], ['tag', 'b']] },
]);
console.log(`all in one partition: ${new Set(Array.from(places, (place) => place.partition)).size === 1}`);

const consumer = client.consumer('readings', { start: 'beginning', untilEnd: true, key: string(), value: string() });
for await (const message of consumer) {
  console.log(`${message.key} ${message.value} ${message.headers.text('unit')} tags: ${message.headers.getAll('tag').join(',')}`);
}
await client.close();
