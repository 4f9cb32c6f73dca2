/** A consumer as a stream of Node.js. @internal */

import { Readable } from 'node:stream';
import { waitFor } from './abort.js';
import type { MessageStream } from './consumer-options.js';
import { Message } from './message.js';
import type { Shelf } from './shelf.js';

/** Where the records come from. */
interface Source<K, V> {
  /** The next one, waited for; undefined once nothing will come any more. */
  next(signal: AbortSignal): Promise<Message<K, V> | undefined>;
  /** The next one that is here; a promise where it has to be waited for a dead letter first. */
  take(): Message<K, V> | Promise<void> | undefined;
  readonly shelf: Shelf;
}

/** Reads ahead so many bytes of keys, values and headers; a record that has more passes alone. @internal */
export function streamOf<K, V>(source: Source<K, V>, limit: number, given: AbortSignal | undefined): MessageStream<K, V> {
  const stop = new AbortController();
  const signal = given ? AbortSignal.any([given, stop.signal]) : stop.signal;
  const fill = async (stream: Readable): Promise<void> => {
    const first = await source.next(signal);
    stream.push(first ?? null);
    let bytes = first ? (first.rawKey?.length ?? 0) + (first.rawValue?.length ?? 0) : limit;
    while (bytes < limit) {
      const size = source.shelf.nextSize ?? limit;
      if (bytes + size > limit) return;
      try {
        const message = source.take();
        if (!message) return;
        if (message instanceof Message) {
          bytes += size;
          stream.push(message);
        } else await waitFor(message, signal);
      } catch (error) {
        // Once what lies before it was read from the stream.
        if (!signal.aborted) source.shelf.fail(error);
        return;
      }
    }
  };
  return new Readable({
    objectMode: true,
    // It is asked for more when it is empty; how much that is, is counted in bytes above.
    highWaterMark: 1,
    read() {
      fill(this).catch((error: Error) => this.destroy(error));
    },
    destroy(error, done) {
      stop.abort();
      done(error);
    },
  });
}
