/** Where the binary of Millpond is: for tests of modules, and for brokers of somebody's own tests. */

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { MillpondError } from './errors.js';

/** @internal */
export const MISSING_HINT = 'set MILLPOND_BIN to the path of the binary';

/** The binary `millpond`: the one that `MILLPOND_BIN` names, else that on the `PATH`. */
export function findBinary(): string {
  const named = process.env['MILLPOND_BIN'];
  const found = named ?? (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'millpond')).find(existsSync);
  if (found === undefined || !existsSync(found)) {
    const where = named === undefined ? 'there is no `millpond` on the PATH' : `MILLPOND_BIN names ${named}, and there is no such file`;
    throw new MillpondError(where, { code: 'broker_missing', hint: MISSING_HINT });
  }
  return found;
}
