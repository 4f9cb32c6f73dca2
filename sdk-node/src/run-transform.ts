/** Trying a module without a broker: `millpond transform test` on records of a test. */

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { check, type Waiting } from './abort.js';
import type { AttachLimits } from './admin-types.js';
import { findBinary, MISSING_HINT } from './binary.js';
import { AbortError, InvalidError, MillpondError, TransformError } from './errors.js';
import { Headers } from './message.js';
import { moduleBytes } from './module-bytes.js';
import type { NewRecord } from './producer.js';
import type { Bytes } from './serializers.js';

/** How to run a module. */
export interface RunTransformOptions extends Waiting {
  /** What the module is given when it starts. */
  params?: Readonly<Record<string, string>> | undefined;
  /** For a module that derives: the topics that it may write to. */
  into?: readonly string[] | undefined;
  /** For a module with state: how many bytes of it there may be. */
  stateBytes?: number | undefined;
  /** The topic that it is told; `test`. */
  topic?: string | undefined;
  /** For a partitioner, and for topics that it derives into: how many partitions there are; 4. */
  partitions?: number | undefined;
  /** What becomes of records on which it fails: the first one ends the test, or they are left out as with `skip` and dead letters; `reject`. */
  onError?: 'reject' | 'skip' | undefined;
  /** What it may use; what a broker allows where it is not set. */
  limits?: AttachLimits | undefined;
  /** The `millpond` binary; else the one that `MILLPOND_BIN` names, else that on the `PATH`. */
  binary?: string | undefined;
}

/** A record as a module has made it. */
export interface Transformed {
  /** The topic: that of the test, or one that the module derives into. */
  readonly topic: string;
  /** The partition that it would go to. */
  readonly partition: number;
  /** The key. */
  readonly key: Buffer | null;
  /** The value. */
  readonly value: Buffer | null;
  /** The headers. */
  readonly headers: Headers;
  /** The timestamp. */
  readonly timestamp: Date;
}

/** Bytes in a line of JSON: text, or what is not text. */
type Encoded = string | { base64: string } | null;

interface Line {
  topic: string;
  partition: number;
  timestamp: number;
  headers: Record<string, Encoded | Encoded[]>;
  key?: Encoded;
  key_base64?: string;
  value?: Encoded;
  value_base64?: string;
}

/** @internal */
export async function run(
  module: string | URL | Uint8Array,
  records: Iterable<NewRecord | Bytes>,
  options: RunTransformOptions,
): Promise<Transformed[]> {
  check(options.signal);
  const binary = options.binary ?? findBinary();
  const folder = await mkdtemp(join(tmpdir(), 'millpond-transform-'));
  try {
    const [wasm, input] = [join(folder, 'module.wasm'), join(folder, 'records.jsonl')];
    await writeFile(wasm, await moduleBytes(module));
    await writeFile(input, Array.from(records, (record) => `${JSON.stringify(line(record))}\n`).join(''));
    const args = ['transform', 'test', wasm, '--input', input, '-o', 'jsonl', ...flags(options)];
    const spawning = { maxBuffer: Infinity, ...(options.signal && { signal: options.signal }) };
    const { stdout } = await promisify(execFile)(binary, args, spawning).catch((error: Failed) => {
      if (options.signal?.aborted) throw new AbortError(options.signal.reason);
      throw failure(binary, error);
    });
    return stdout.split('\n').filter(Boolean).map((text) => transformed(JSON.parse(text) as Line));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What `execFile` rejects with: an exit code, or the code of a system error. */
type Failed = Error & { stderr?: string; code?: number | string };

const BAD_USAGE = 2;

function failure(binary: string, error: Failed): MillpondError {
  if (typeof error.code === 'string') {
    return new MillpondError(`${binary} could not be run: ${error.code}`, { code: 'broker_missing', hint: MISSING_HINT, cause: error });
  }
  const said = error.stderr?.trim() || error.message;
  return error.code === BAD_USAGE ? new InvalidError(said, { code: 'invalid_setting' }) : new TransformError(said, { code: 'guest_failed' });
}

function flags(options: RunTransformOptions): string[] {
  const { limits = {} } = options;
  const given = Object.entries({
    'state-bytes': options.stateBytes,
    topic: options.topic,
    partitions: options.partitions,
    'on-error': options.onError,
    into: options.into?.join(','),
    memory: limits.memoryBytes,
    time: limits.timeMs === undefined ? undefined : `${limits.timeMs}ms`,
    'max-output': limits.outputBytes,
    'log-rate': limits.logBytesPerSecond,
  });
  const params = Object.entries(options.params ?? {}).map(([name, value]) => `--param=${name}=${value}`);
  return [...params, ...given.flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]))];
}

function line(given: NewRecord | Bytes): Record<string, unknown> {
  const record: NewRecord = typeof given === 'string' || given instanceof Uint8Array ? { value: given } : given;
  const text = (part: Bytes): string => Buffer.from(part as Uint8Array).toString('base64');
  const part = (name: string, bytes: Bytes | null | undefined): object => (bytes == null ? { [name]: null } : { [`${name}_base64`]: text(bytes) });
  const headers: Record<string, ({ base64: string } | null)[]> = {};
  const pairs = record.headers ?? {};
  for (const [name, value] of Symbol.iterator in pairs ? pairs : Object.entries(pairs)) {
    (headers[name] ??= []).push(value === null ? null : { base64: text(value) });
  }
  const timestamp = record.timestamp === undefined ? {} : { timestamp: Number(record.timestamp) };
  return { ...part('key', record.key), ...part('value', record.value), headers, ...timestamp };
}

function transformed(from: Line): Transformed {
  const bytes = (value: Encoded | undefined): Buffer | null =>
    value == null ? null : typeof value === 'string' ? Buffer.from(value) : Buffer.from(value.base64, 'base64');
  const part = (encoded: string | undefined, value: Encoded | undefined): Buffer | null =>
    encoded === undefined ? bytes(value) : Buffer.from(encoded, 'base64');
  const headers = Object.entries(from.headers).flatMap(([name, values]) =>
    (Array.isArray(values) ? values : [values]).map((value): [string, Buffer | null] => [name, bytes(value)]),
  );
  return {
    topic: from.topic,
    partition: from.partition,
    key: part(from.key_base64, from.key),
    value: part(from.value_base64, from.value),
    headers: new Headers(headers),
    timestamp: new Date(from.timestamp),
  };
}
