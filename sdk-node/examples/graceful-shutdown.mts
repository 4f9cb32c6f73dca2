// A service that ends well: on SIGTERM or SIGINT the handler that runs is waited for, everything sent is answered, and the process ends by itself.

import { connect, string } from 'millpond';

await using client = await connect();
for (const topic of ['jobs', 'results']) await client.admin.createTopic(topic, { ifExists: 'ok' });
const results = client.producer('results');
const jobs = client.consumer('jobs', { start: 'beginning', value: string() });

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());

console.log('working');
await jobs.run({
  signal: stop.signal,
  eachMessage: async (message) => {
    await results.send({ key: message.key, value: `done: ${message.value}` });
    console.log(`done: ${message.value}`);
  },
});
console.log('stopped');
// `await using` closes the client here: producers are flushed, and nothing is left open.
