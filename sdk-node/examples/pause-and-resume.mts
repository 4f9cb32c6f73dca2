// Hold one partition back while the others go on: its place stays.

import { connect, string } from 'millpond';

const client = await connect();
await client.admin.createTopic('orders', { partitions: 2, ifExists: 'ok' });
const rows = [0, 1, 2].flatMap((number) => [0, 1].map((partition) => ({ partition, value: `order ${number}` })));
await client.producer('orders').sendMany(rows);

const consumer = client.consumer('orders', { start: 'beginning', value: string() });
await consumer.pause(0);
for (let seen = 0; seen < 3; seen++) console.log(`partition ${(await consumer.next())?.partition}`);
console.log(`partition 0 waits at offset ${await consumer.position(0)}`);
await consumer.resume(0);
for (let seen = 0; seen < 3; seen++) {
  const message = await consumer.next();
  console.log(`partition ${message?.partition}: ${message?.value}`);
}
await client.close();
