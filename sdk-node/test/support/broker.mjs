// A real broker for tests: the binary of the same build, a temporary folder, a port that was free a moment ago.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const repository = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

/** The binary: MILLPOND, else that of this repository. */
export function binary() {
  const path = process.env.MILLPOND ?? join(process.env.CARGO_TARGET_DIR ?? join(repository, 'target'), 'release', 'millpond');
  if (!existsSync(path)) throw new Error(`${path} is not built: cargo build --release -p millpond-cli`);
  return path;
}

/** A plugin that plugins/build.sh made. */
export function plugin(name) {
  const path = join(repository, 'plugins', 'dist', `${name}.wasm`);
  if (!existsSync(path)) throw new Error(`${path} is not built: plugins/build.sh`);
  return path;
}

/** A UDP port that nobody listens on. */
export async function freePort() {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

/** A broker in a process of its own. */
export class Broker {
  #child;
  log = '';

  constructor(folder, port, flags) {
    this.folder = folder;
    this.port = port;
    this.flags = flags;
  }

  /** Starts one, and waits until it is ready. `using` and `stop` end it. */
  static async start(...flags) {
    const broker = new Broker(mkdtempSync(join(tmpdir(), 'millpond-test-')), await freePort(), flags);
    await broker.run();
    return broker;
  }

  async run() {
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('MILLPOND_'));
    const child = spawn(
      binary(),
      [
        'serve',
        ...['--data-dir', join(this.folder, 'data'), '--quic-listen', `127.0.0.1:${this.port}`],
        ...['--kafka-listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'],
        ...this.flags,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...Object.fromEntries(environment), XDG_STATE_HOME: join(this.folder, 'state') } },
    );
    this.#child = child;
    child.stderr.on('data', (text) => (this.log += text));
    const [url] = await Promise.race([
      once(createInterface(child.stdout), 'line'),
      once(child, 'exit').then(() => Promise.reject(new Error(`the broker did not start:\n${this.log}`))),
    ]);
    this.url = url.trim();
    // A test that fails must not be kept alive by its broker.
    child.unref();
    child.stdout.unref?.();
    child.stderr.unref?.();
  }

  signal(name) {
    this.#child.kill(name);
  }

  /** Lets it stand still (SIGSTOP), and waits until it does. */
  async freeze() {
    this.#child.kill('SIGSTOP');
    const state = () => readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1][0];
    while (state() !== 'T') await setImmediate();
  }

  /** `kill -9`, and waits until it is gone; the folder stays. */
  async kill() {
    const gone = once(this.#child, 'exit');
    this.#child.ref();
    this.#child.kill('SIGKILL');
    await gone;
  }

  /** Starts it again on the same folder and port. */
  async restart() {
    await this.run();
  }

  /** Ends it and removes its folder. */
  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

let shared;

/** The one broker that the tests of a file share. */
export async function broker() {
  shared ??= Broker.start();
  return await shared;
}

process.on('exit', () => {
  shared?.then((started) => started.stop());
});

let number = 0;

/** A name for a topic that no other test has. */
export function topicName(word = 't') {
  return `${word}-${process.pid}-${number++}`;
}
