// Types for what is in the records, and what to do with a record that is not of that kind.

import { connect, json, string, type Codec, type Message } from 'millpond';

interface Reading {
  device: string;
  celsius: number;
}

/** JSON that is looked at: any object with `serialize` and `deserialize` will do, so a schema library fits as well. */
const reading: Codec<Reading> = {
  serialize: (value) => JSON.stringify(value),
  deserialize(bytes) {
    const value = json<Partial<Reading>>().deserialize(bytes);
    if (typeof value.device !== 'string' || typeof value.celsius !== 'number') throw new TypeError('this is no reading');
    return { device: value.device, celsius: value.celsius };
  },
};

const client = await connect();
for (const topic of ['models', 'models-unreadable']) await client.admin.createTopic(topic, { ifExists: 'ok' });
const producer = client.producer('models', { key: string(), value: reading });
await producer.send({ key: 'device-7', value: { device: 'device-7', celsius: 21.4 } });
await client.producer('models').send({ value: 'from somebody else' });
await producer.send({ key: 'device-8', value: { device: 'device-8', celsius: 35 } });

const consumer = client.consumer('models', {
  start: 'beginning',
  untilEnd: true,
  key: string(),
  value: reading,
  onDecodeError: 'dead-letter',
  deadLetterTopic: 'models-unreadable',
});
const show = (message: Message<string, Reading>): void => console.log(`${message.value?.device}: ${message.value?.celsius} °C`);
for await (const message of consumer) show(message);

const letters = client.consumer('models-unreadable', { start: 'beginning', untilEnd: true, value: string() });
for await (const letter of letters) console.log(`put aside: ${letter.value} (${letter.headers.text('millpond.error.code')})`);
await client.close();
