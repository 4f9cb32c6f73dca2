// The packages of the platforms are laid out as napi-rs does it: what npm chooses by, and what the package loads, agree with each other.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('..', import.meta.url));
const read = (...path) => JSON.parse(readFileSync(join(here, ...path), 'utf8'));

const main = read('package.json');
const expected = main.napi.targets.map((target) => {
  const [, arch, libc] = /^(x86_64|aarch64)-unknown-linux-(gnu|musl)$/.exec(target) ?? assert.fail(`${target} has no platform`);
  const cpu = { x86_64: 'x64', aarch64: 'arm64' }[arch];
  return { target, cpu, libc: { gnu: 'glibc', musl: 'musl' }[libc], platform: `linux-${cpu}-${libc}` };
});

test('each target has a package, and no other is there', () => {
  assert.deepEqual(readdirSync(join(here, 'npm')).sort(), expected.map(({ platform }) => platform).sort());
});

for (const { target, cpu, libc, platform } of expected) {
  test(`the package for ${platform} says what it is for`, () => {
    const { description, ...own } = read('npm', platform, 'package.json');
    const file = `millpond.${platform}.node`;
    assert.ok(description.includes(target), description);
    assert.deepEqual(own, {
      name: `millpond-${platform}`,
      version: main.version,
      license: main.license,
      os: ['linux'],
      cpu: [cpu],
      libc: [libc],
      main: file,
      files: [file],
      engines: main.engines,
    });
  });
}
