/** Handlers that are called with what a consumer reads. */

import type { BatchOptions, RunOptions } from './consumer-options.js';
import { AbortError, invalid } from './errors.js';
import type { Batch, Message } from './message.js';

/** Where the records come from; undefined once nothing will come any more. */
interface Source<K, V> {
  message(signal: AbortSignal | undefined): Promise<Message<K, V> | undefined>;
  batch(options: BatchOptions): Promise<Batch<K, V> | undefined>;
}

/** @internal */
export async function runHandlers<K, V>(options: RunOptions<K, V>, source: Source<K, V>): Promise<void> {
  const { eachMessage, eachBatch, ...rest } = options ?? {};
  if ((typeof eachMessage === 'function') === (typeof eachBatch === 'function')) {
    throw invalid('`run` needs a handler: `eachMessage` or `eachBatch`');
  }
  const wanted = <T>(waiting: Promise<T>): Promise<T | undefined> =>
    waiting.catch((error: unknown) => {
      if (error instanceof AbortError && rest.signal?.aborted) return undefined;
      throw error;
    });
  for (;;) {
    if (eachMessage) {
      const message = await wanted(source.message(rest.signal));
      if (!message) return;
      await eachMessage(message);
    } else if (eachBatch) {
      const batch = await wanted(source.batch(rest));
      if (!batch) return;
      await eachBatch(batch);
    }
  }
}
