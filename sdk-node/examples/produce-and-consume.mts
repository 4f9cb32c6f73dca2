// The ten lines: send some records and read them back.

import { connect, string } from 'millpond';

const client = await connect();
await client.admin.createTopic('greetings', { partitions: 2, ifExists: 'ok' });

const producer = client.producer('greetings');
const { partition, offset } = await producer.send({ key: 'device-7', value: 'hello' });
console.log(`stored at ${partition}, offset ${offset}`);
producer.send({ key: 'device-7', value: 'world' });
await producer.flush();

const consumer = client.consumer('greetings', { start: 'beginning', value: string() });
let seen = 0;
for await (const message of consumer) {
  console.log(`${message.partition}/${message.offset}: ${message.value}`);
  if (++seen === 2) break;
}
await client.close();
