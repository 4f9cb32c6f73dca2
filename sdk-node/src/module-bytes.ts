/** WebAssembly modules, from where they are. */

import { readFile } from 'node:fs/promises';
import { InvalidError, wrongType } from './errors.js';
import { kindOf } from './serializers.js';

/** The bytes of a module, from a file or as they are. @internal */
export async function moduleBytes(wasm: string | URL | Uint8Array): Promise<Uint8Array> {
  if (wasm instanceof Uint8Array) return wasm;
  if (typeof wasm !== 'string' && !(wasm instanceof URL)) {
    throw wrongType(`a module is the path of a file or its bytes, and this is ${kindOf(wasm)}`);
  }
  try {
    return await readFile(wasm);
  } catch (cause) {
    throw new InvalidError(`the module ${String(wasm)} cannot be read: ${(cause as Error).message}`, {
      code: 'module_unreadable',
      hint: 'give its bytes, or the path of its file',
      cause,
    });
  }
}
