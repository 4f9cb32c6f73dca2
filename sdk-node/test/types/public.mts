// What the types promise, checked by the compiler: nothing here is run.

import { connect, json, string, type Consumer, type Message, type Producer, type RecordPlace } from 'millpond';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => undefined;

interface Reading {
  celsius: number;
}

const client = await connect();

// Without serializers: strings and bytes in, buffers out.
const plain = client.producer('t');
same<typeof plain, Producer<string | Uint8Array, string | Uint8Array>>(true);
const place = await plain.send({ key: 'k', value: Buffer.from('v'), headers: { a: 'b', none: null } });
same<typeof place, RecordPlace>(true);
same<typeof place.offset, bigint>(true);
// @ts-expect-error an object needs a serializer
await plain.send({ value: { celsius: 5 } });
// @ts-expect-error a number is no header
await plain.send({ value: 'x', headers: { a: 5 } });

// The types come from the serializers, both ways.
const typed = client.producer('t', { key: string(), value: json<Reading>() });
same<typeof typed, Producer<string, Reading>>(true);
await typed.send({ key: 'k', value: { celsius: 5 } });
await typed.send({ key: 'k', value: null });
// @ts-expect-error this is no reading
await typed.send({ key: 'k', value: { fahrenheit: 5 } });

const consumer = client.consumer('t', { key: string(), value: json<Reading>() });
same<typeof consumer, Consumer<string, Reading>>(true);
for await (const message of consumer) {
  same<typeof message, Message<string, Reading>>(true);
  same<typeof message.value, Reading | null>(true);
  same<typeof message.offset, bigint>(true);
  same<typeof message.timestamp, Date>(true);
}
for await (const batch of consumer.batches({ maxRecords: 5 })) for (const message of batch) same<typeof message.value, Reading | null>(true);
for await (const message of consumer.stream({ highWaterMarkBytes: 5 })) same<typeof message, Message<string, Reading>>(true);
await consumer.run({ eachMessage: (message) => same<typeof message.key, string | null>(true) });
// Without: buffers.
const raw = client.consumer('t');
same<typeof raw, Consumer<Buffer, Buffer>>(true);

// One of the two is enough where the other is bytes, and types that are named ask for what makes them.
same<ReturnType<typeof valued>, Producer<string | Uint8Array, Reading>>(true);
const valued = () => client.producer('t', { value: json<Reading>() });
same<ReturnType<typeof keyed>, Consumer<string, Buffer>>(true);
const keyed = () => client.consumer('t', { key: string() });
client.producer<string, string>('t');
client.producer<string, Reading>('t', { value: json() });
client.consumer<string, Reading>('t', { key: string(), value: json() });
// @ts-expect-error a reading needs a serializer
client.producer<string, Reading>('t');
// @ts-expect-error a reading needs a serializer, and this is one for keys
client.producer<string, Reading>('t', { key: string() });
// @ts-expect-error without a deserializer values are buffers
client.consumer<string, Reading>('t', { key: string() });
// @ts-expect-error without a deserializer keys are buffers
client.consumer<string, Reading>('t', { value: json() });

// A number is neither an offset nor a time: one is taken for the other too easily.
// @ts-expect-error an offset is a bigint
await consumer.seek(5);
await consumer.seek(5n);
await consumer.seek(new Date());
await consumer.seek({ timestampMs: 5 });
// @ts-expect-error there is no such policy
client.consumer('t', { onOutOfRange: 'first' });
// @ts-expect-error there is no such setting
client.consumer('t', { groupId: 'g' });
// @ts-expect-error there is no such durability
await client.admin.createTopic('t', { durability: 'never' });
await client.admin.createTopic('t', { durability: 'interval:200ms', partitions: 2 });
await using disposed = client.producer('t');
void disposed;
