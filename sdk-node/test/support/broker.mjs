// The brokers of these tests: `millpond/testing` with the binary of this repository.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { broker as start, freePort } from 'millpond/testing';

export { freePort };

const repository = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

/** The binary: MILLPOND_BIN, else that of this repository. */
export function binary() {
  const path = process.env.MILLPOND_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(repository, 'target'), 'release', 'millpond');
  if (!existsSync(path)) throw new Error(`${path} is not built: cargo build --release -p millpond-cli`);
  return path;
}

/** A plugin that plugins/build.sh made. */
export function plugin(name) {
  const path = join(repository, 'plugins', 'dist', `${name}.wasm`);
  if (!existsSync(path)) throw new Error(`${path} is not built: plugins/build.sh`);
  return path;
}

/** A broker of its own. */
export function ownBroker(...flags) {
  return start({ binary: binary(), flags });
}

let shared;

/** The one broker that the tests of a file share; it ends with the process. */
export async function broker() {
  shared ??= ownBroker();
  return await shared;
}

let number = 0;

/** A name for a topic that no other test has. */
export function topicName(word = 't') {
  return `${word}-${process.pid}-${number++}`;
}
