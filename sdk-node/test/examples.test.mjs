// Every example is run against a broker of its own kind, and must print what it is there to show.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from 'millpond';
import { broker, plugin } from './support/broker.mjs';

const folder = fileURLToPath(new URL('../dist/examples/', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'millpond-examples-'));
after(() => rmSync(scratch, { recursive: true }));

async function start(name, ...args) {
  const { url } = await broker();
  const child = spawn(process.execPath, [join(folder, `${name}.mjs`), ...args], { env: { ...process.env, MILLPOND_URL: url }, timeout: 15_000 });
  child.text = '';
  child.stdout.on('data', (text) => (child.text += text));
  child.stderr.on('data', (text) => (child.text += text));
  return child;
}

async function run(name, ...args) {
  const child = await start(name, ...args);
  const [code] = await once(child, 'close');
  assert.equal(code, 0, child.text);
  return child.text.trim().split('\n');
}

const runs = {
  'produce-and-consume': async (name) => {
    const [stored, hello, world] = await run(name);
    const partition = /^stored at (\d), offset 0$/.exec(stored)[1];
    assert.deepEqual([hello, world], [`${partition}/0: hello`, `${partition}/1: world`]);
  },
  'start-at-a-time': async (name) => {
    assert.deepEqual(await run(name), ['2026-01-01T12:02:00.000Z minute 2', '2026-01-01T12:03:00.000Z minute 3']);
  },
  'headers-and-keys': async (name) => {
    assert.deepEqual(await run(name), ['all in one partition: true', 'device-7 21.4 C tags: ', 'device-7 21.5 C tags: ', 'device-7 70.5 F tags: a,b']);
  },
  'json-models': async (name) => {
    assert.deepEqual(await run(name), ['device-7: 21.4 °C', 'device-8: 35 °C', 'put aside: from somebody else (decode_failed)']);
  },
  'deploy-a-transform': async (name) => {
    const lines = await run(name, plugin('hot'));
    assert.deepEqual(lines.slice(0, 4), ['deployed hot, version 1', '75: dropped', '85: stored', '95: stored']);
    assert.deepEqual(lines.slice(4), ['kept: 85, alert: hot', 'kept: 95, alert: hot', 'records in: 3, dropped: 1']);
  },
  'pause-and-resume': async (name) => {
    const one = Array(3).fill('partition 1');
    assert.deepEqual(await run(name), [...one, 'partition 0 waits at offset 0', ...[0, 1, 2].map((number) => `partition 0: order ${number}`)]);
  },
  'graceful-shutdown': async (name) => {
    const client = await connect((await broker()).url);
    await client.admin.createTopic('jobs', { ifExists: 'ok' });
    const child = await start(name);
    await client.producer('jobs').send({ value: 'a job' });
    while (!child.text.includes('done: a job')) await once(child.stdout, 'data');
    child.kill('SIGTERM');
    const [code, signal] = await once(child, 'close');
    assert.deepEqual([code, signal, child.text], [0, null, 'working\ndone: a job\nstopped\n']);
    const result = await client.consumer('results', { start: 'beginning' }).next();
    assert.equal(result.value.toString(), 'done: a job');
    await client.close();
  },
  'bulk-load': async (name) => {
    const file = join(scratch, 'readings.csv');
    writeFileSync(file, ['device,celsius', ...Array.from({ length: 20_000 }, (_, row) => `device-${row % 10},${row / 10}`)].join('\n'));
    assert.deepEqual(await run(name, file), ['20000 records stored']);
  },
};

for (const name of readdirSync(folder).map((file) => file.replace(/\.mjs$/, ''))) {
  test(name, () => {
    assert.ok(runs[name], 'an example that nobody runs');
    return runs[name](name);
  });
}
