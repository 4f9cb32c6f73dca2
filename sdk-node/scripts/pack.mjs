// Packs what is published: the package itself, and one for each platform whose native half is built (npm run build:native [target]). As napi-rs does
// it, the package names those of all platforms as optional dependencies, and npm installs the one that fits. Usage: node scripts/pack.mjs FOLDER

import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = resolve(process.argv[2] ?? join(here, 'packages'));
mkdirSync(out, { recursive: true });

function pack(folder) {
  const packed = spawnSync('npm', ['pack', '--pack-destination', out, '--ignore-scripts'], { cwd: folder, encoding: 'utf8' });
  if (packed.status !== 0) throw new Error(packed.stderr);
  console.log(join(out, packed.stdout.trim().split('\n').at(-1)));
}

const platforms = readdirSync(join(here, 'npm'));
for (const platform of platforms) {
  if (existsSync(join(here, 'npm', platform, `millpond.${platform}.node`))) pack(join(here, 'npm', platform));
}

const { devDependencies, scripts, ...published } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'));
published.optionalDependencies = Object.fromEntries(platforms.map((platform) => [`millpond-${platform}`, published.version]));
const staging = mkdtempSync(join(tmpdir(), 'millpond-pack-'));
cpSync(join(here, 'dist'), join(staging, 'dist'), { recursive: true });
mkdirSync(join(staging, 'native'));
copyFileSync(join(here, 'native', 'binding.d.ts'), join(staging, 'native', 'binding.d.ts'));
copyFileSync(join(here, 'README.md'), join(staging, 'README.md'));
copyFileSync(join(here, '..', 'LICENSE'), join(staging, 'LICENSE'));
writeFileSync(join(staging, 'package.json'), `${JSON.stringify(published, null, 2)}\n`);
pack(staging);
rmSync(staging, { recursive: true });
