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

/**
 * `linux-x64-gnu` and the like, as npm and napi-rs call it. Which C library there is, is tried: asking Node.js for it (`process.report`) asks for the names
 * of all open sockets' peers as well, which takes seconds.
 */
function platforms(): string[] {
  const here = `${process.platform}-${process.arch}`;
  return process.platform === 'linux' ? [`${here}-gnu`, `${here}-musl`] : [here];
}

function load(): typeof Native {
  const causes: unknown[] = [];
  for (const platform of platforms()) {
    const built = join(__dirname, '..', 'native', `millpond.${platform}.node`);
    try {
      return require(existsSync(built) ? built : `millpond-${platform}`) as typeof Native;
    } catch (cause) {
      causes.push(cause);
    }
  }
  // What was found and could not be loaded says more than what is not there.
  const isThere = (cause: unknown): boolean => (cause as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND';
  throw new MillpondError(`there is no native half of millpond for ${process.platform}-${process.arch}`, {
    code: 'native_missing',
    hint:
      `install the package ${platforms().map((platform) => `millpond-${platform}`).join(' or ')} (npm leaves it out with --omit=optional or ` +
      '--no-optional), or build it in the repository: npm run build',
    cause: causes.find(isThere) ?? causes[0],
  });
}

/** @internal */
export const native = load();
