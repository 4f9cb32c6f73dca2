// The same types for CommonJS.

import millpond = require('millpond');

async function run(): Promise<bigint> {
  const client = await millpond.connect();
  const { offset } = await client.producer('t', { value: millpond.json<number[]>() }).send({ value: [1] });
  return offset;
}

module.exports = { run };
