// The demo's Node.js program: reads a topic from its beginning to its end with the package `millpond`, and prints each record as a line of JSON.
//
// Takes the topic as its argument; the broker is the one in MILLPOND_URL.

import { connect, json, string } from '../../sdk-node/dist/index.mjs';

const client = await connect(process.env.MILLPOND_URL);
const records = client.consumer(process.argv[2], { start: 'beginning', untilEnd: true, key: string(), value: json() });
for await (const { key, value, headers, partition } of records) {
  console.log(JSON.stringify({ key, value, partition, by: headers.text('by') }));
}
await client.close();
