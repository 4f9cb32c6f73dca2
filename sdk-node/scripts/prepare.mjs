// Runs when the package is installed from the repository (`npm install path/to/sdk-node`): builds what is not built yet. Packages that were
// packed bring all of it, and run nothing.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: here, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

if (!readdirSync(join(here, 'native')).some((name) => name.endsWith('.node'))) run('node', 'scripts/build-native.mjs');
if (!existsSync(join(here, 'dist', 'index.js'))) {
  if (!existsSync(join(here, 'node_modules', 'typescript'))) run('npm', 'ci', '--ignore-scripts');
  run('npm', 'run', 'build:ts');
}
