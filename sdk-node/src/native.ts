/**
 * Finds and loads the native half: the one that was built here, else the package for this platform.
 *
 * @internal
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type * as Native from '../native/binding';
import { MillpondError } from './errors.js';

export type { Native };

/** `linux-x64-gnu` and the like, as npm and napi-rs call it. */
function platform(): string {
  if (process.platform !== 'linux') return `${process.platform}-${process.arch}`;
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return `linux-${process.arch}-${report.header?.glibcVersionRuntime ? 'gnu' : 'musl'}`;
}

function load(): typeof Native {
  const here = platform();
  const built = join(__dirname, '..', 'native', `millpond.${here}.node`);
  try {
    return require(existsSync(built) ? built : `millpond-${here}`) as typeof Native;
  } catch (cause) {
    throw new MillpondError(`there is no native half of millpond for ${here}`, {
      code: 'native_missing',
      hint:
        `install the package millpond-${here} (npm leaves it out with --omit=optional or --no-optional), ` +
        'or build it in the repository: npm run build',
      cause,
    });
  }
}

/** @internal */
export const native = load();
