// Load a CSV file of any size: sendMany takes an async iterable, and no more of it is in memory than the producer's buffer. The file is an argument.

import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { connect, json, type NewRecord } from 'millpond';

const path = process.argv[2];
if (path === undefined) throw new Error('which file? bulk-load.mts path/to/readings.csv');

const client = await connect();
await client.admin.createTopic('bulk', { partitions: 2, ifExists: 'ok' });
const producer = client.producer('bulk', { value: json<Record<string, string>>(), compression: 'lz4' });
const { size } = await stat(path);
const file = createReadStream(path);

function progress(count: number): void {
  const share = Math.round((20 * file.bytesRead) / size);
  const bar = '#'.repeat(share).padEnd(20, '.');
  if (process.stderr.isTTY) process.stderr.write(`\r[${bar}] ${count} records`);
}

async function* rows(): AsyncGenerator<NewRecord<string | Uint8Array, Record<string, string>>> {
  let names: string[] | undefined;
  let count = 0;
  for await (const line of createInterface(file)) {
    const fields = line.split(',');
    if (names === undefined) names = fields;
    else {
      yield { key: fields[0], value: Object.fromEntries(names.map((name, column) => [name, fields[column] ?? ''])) };
      if (++count % 1_000 === 0) progress(count);
    }
  }
}

const places = await producer.sendMany(rows());
progress(places.length);
if (process.stderr.isTTY && process.stderr.writableNeedDrain) await once(process.stderr, 'drain');
console.log(`${places.length} records stored`);
await client.close();
