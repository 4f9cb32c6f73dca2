// Read what happened since a moment: `start` and `seek` take a Date.

import { connect, string } from 'millpond';

const client = await connect();
await client.admin.createTopic('events', { ifExists: 'ok' });
const producer = client.producer('events');
for (const minute of [0, 1, 2, 3]) {
  await producer.send({ value: `minute ${minute}`, timestamp: new Date(Date.UTC(2026, 0, 1, 12, minute)) });
}

const since = new Date(Date.UTC(2026, 0, 1, 12, 2));
const consumer = client.consumer('events', { start: since, untilEnd: true, value: string() });
for await (const message of consumer) console.log(`${message.timestamp.toISOString()} ${message.value}`);
await client.close();
