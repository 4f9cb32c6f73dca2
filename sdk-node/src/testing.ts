/**
 * A real broker for your own tests: a process with a temporary folder and a port of its own.
 *
 * ```ts
 * import { connect } from 'millpond';
 * import { broker } from 'millpond/testing';
 *
 * await using own = await broker();
 * await using client = await connect(own.url);
 * ```
 *
 * @packageDocumentation
 */

import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { findBinary } from './binary.js';
import { MillpondError } from './errors.js';
import type { NewRecord } from './producer.js';
import { run, type RunTransformOptions, type Transformed } from './run-transform.js';
import type { Bytes } from './serializers.js';

export { findBinary } from './binary.js';
export type { RunTransformOptions, Transformed } from './run-transform.js';

/** Which broker to start, and how. */
export interface BrokerOptions {
  /** The `millpond` binary; else the one that `MILLPOND_BIN` names, else that on the `PATH`. */
  binary?: string | undefined;
  /** More flags for `millpond serve`. */
  flags?: readonly string[] | undefined;
}

/** Brokers that were not stopped: a process that ends takes them along, and their folders. */
const running = new Set<() => void>();

function endAll(): void {
  for (const end of running) end();
}

/** Starts a broker and waits until it is ready. It ends with this process, at the latest. */
export async function broker(options: BrokerOptions = {}): Promise<TestBroker> {
  const started = new TestBroker(options.binary ?? findBinary(), await freePort(), options.flags ?? []);
  try {
    await started.start();
  } catch (error) {
    await started.stop();
    throw error;
  }
  return started;
}

/** More of a broker's log is not kept. */
const LOG_CHARS_MAX = 1 << 20;

/** A broker in a process of its own, from {@link broker}. */
export class TestBroker implements AsyncDisposable {
  /** Its temporary folder; the data are in `data`. */
  readonly folder = mkdtempSync(join(tmpdir(), 'millpond-test-'));
  /** The UDP port that it listens on, of 127.0.0.1; the same after a restart. */
  readonly port: number;
  readonly #binary: string;
  readonly #flags: readonly string[];
  #child: ChildProcess | undefined;
  #url = '';
  #log = '';

  /** @internal */
  constructor(binary: string, port: number, flags: readonly string[]) {
    this.#binary = binary;
    this.port = port;
    this.#flags = flags;
    if (running.size === 0) process.once('exit', endAll);
    running.add(this.#end);
  }

  /** Its address, fingerprint included. */
  get url(): string {
    return this.#url;
  }

  /** What it has logged so far, the last 1 Mi characters of it. */
  get log(): string {
    return this.#log;
  }

  /** Its process. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it again after {@link TestBroker.kill}, on the same folder and port. */
  async start(): Promise<void> {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith('MILLPOND_'));
    const listen = ['--quic-listen', `127.0.0.1:${this.port}`, '--kafka-listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
    // The pipe ends with this process, however that ends, and the broker with the pipe.
    const child = spawn(this.#binary, ['serve', '--stop-with-stdin', '--data-dir', join(this.folder, 'data'), ...listen, ...this.#flags], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...Object.fromEntries(own), XDG_STATE_HOME: join(this.folder, 'state') },
    });
    this.#child = child;
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (text: Buffer) => (this.#log = (this.#log + text.toString()).slice(-LOG_CHARS_MAX)));
    const ended = once(child, 'exit').then(() => {
      throw new MillpondError(`the broker did not start; it said:\n${this.#log}`, { code: 'broker_failed' });
    });
    const [line] = (await Promise.race([once(createInterface(child.stdout), 'line'), ended])) as [string];
    ended.catch(() => undefined);
    this.#url = line.trim();
    // A test that fails is not kept alive by its broker.
    child.unref();
    for (const stream of [child.stdin, child.stdout, child.stderr] as unknown as (Readable & { unref?(): void })[]) stream.unref?.();
  }

  /** `kill -9`, and waits until it is gone. The folder stays. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.ref();
    child.kill('SIGKILL');
    await gone;
  }

  /** Lets it stand still (SIGSTOP), and waits until it does. */
  async freeze(): Promise<void> {
    this.#child?.kill('SIGSTOP');
    const state = (): string | undefined => readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1]?.[0];
    while (state() !== 'T') await setImmediate();
  }

  /** Lets it go on. */
  thaw(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Ends it and removes its folder. */
  async stop(): Promise<void> {
    await this.kill();
    this.#end();
    running.delete(this.#end);
    if (running.size === 0) process.removeListener('exit', endAll);
  }

  /** Without waiting. */
  #end = (): void => {
    if (this.#child?.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
  };

  /** Stops it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/**
 * Runs a WebAssembly module on records as a broker would, in the same host and under the same limits, and gives what comes out. No broker is asked.
 * Rejects with a `TransformError` where the module fails.
 */
export function runTransform(
  module: string | URL | Uint8Array,
  records: Iterable<NewRecord | Bytes>,
  options: RunTransformOptions = {},
): Promise<Transformed[]> {
  return run(module, records, options);
}

/** A UDP port of 127.0.0.1 that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}
