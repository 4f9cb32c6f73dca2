// Deploy a WebAssembly module, run it on a topic, and watch it work. The module is an argument: hot.wasm keeps what is hotter than a limit.

import { connect, json } from 'millpond';

const wasm = process.argv[2];
if (wasm === undefined) throw new Error('which module? deploy-a-transform.mts path/to/hot.wasm');

const client = await connect();
const { transforms } = client.admin;
await client.admin.createTopic('engine', { ifExists: 'ok' });
const module = await transforms.deploy('hot', wasm);
console.log(`deployed ${module.name}, version ${module.version}`);
await transforms.attach('engine', 'hot', { params: { limit: '80' }, onError: 'skip' });

const producer = client.producer('engine', { value: json<{ temperature: number }>() });
for (const temperature of [75, 85, 95]) {
  const { fate } = await producer.send({ value: { temperature } });
  console.log(`${temperature}: ${fate}`);
}
const consumer = client.consumer('engine', { start: 'beginning', untilEnd: true, value: json<{ temperature: number }>() });
for await (const message of consumer) console.log(`kept: ${message.value?.temperature}, alert: ${message.headers.text('alert')}`);

const [attachment] = (await client.admin.topic('engine')).attachments;
console.log(`records in: ${attachment?.recordsIn}, dropped: ${attachment?.recordsDropped}`);
for (const line of (await transforms.logs('hot')).lines) console.log(`${line.at.toISOString()} ${line.level} ${line.message}`);
await transforms.detach('engine', 'hot');
await client.close();
