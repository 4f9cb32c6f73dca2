/** Reading records: one by one, in batches, as a stream, or with handlers. */

import { inspect, type InspectOptions } from 'node:util';
import { TIMER_MS_MAX, after, call, check, checkMs, waitFor, type Waiting } from './abort.js';
import {
  known,
  partitionNumber,
  place,
  positive,
  withPlaces,
  type BatchOptions,
  type ConsumerOptions,
  type DeadLetters,
  type MessageStream,
  type PartitionState,
  type Place,
  type RunOptions,
  type StreamOptions,
} from './consumer-options.js';
import { Decoding } from './decoding.js';
import { AbortError, CANCELLED, MillpondError, closed, here, invalid, toError } from './errors.js';
import { closed as isClosed, opened, type OpenHandle } from './handles.js';
import { stringify, toWire } from './json.js';
import { Batch, Message, type Span } from './message.js';
import { native, type Native } from './native.js';
import { runHandlers } from './run.js';
import { Shelf } from './shelf.js';
import { streamOf } from './stream.js';

const MAX_RECORDS = 10_000;
const HIGH_WATER_MARK_BYTES = 1 << 20;

/**
 * Reads one topic. From `client.consumer`; opened when it is first used.
 *
 * Records of a partition come in order, each once. Records are read ahead, up to four pushes of the broker (a megabyte each, or one
 * larger batch), one more for each partition, and 4 MiB for each partition that the network holds; a consumer that is not read makes the broker wait.
 * Leaving a loop, and aborting a wait, lose nothing: the next read goes on with the next record.
 */
export class Consumer<K = Buffer, V = Buffer> implements AsyncIterable<Message<K, V>>, AsyncDisposable {
  /** The topic. */
  readonly topic: string;
  readonly #native: Native.Consumer;
  readonly #decoding: Decoding<K, V>;
  readonly #signal: AbortSignal | undefined;
  readonly #forget: (consumer: Consumer<K, V>) => void;
  /** What was read and not handed out. */
  readonly #shelf = new Shelf();
  /** The one read that is under way, shared by all who wait. */
  #reading: { done: Promise<void>; cancel: Native.Cancel; waiting: number } | undefined;
  /** A command that is under way: nothing is read meanwhile. */
  #command: Promise<unknown> | undefined;
  #ended = false;
  #isClosed = false;
  /** Who waits for a command to change something. */
  #sleeping: (() => void)[] = [];
  /** The consumer's signal together with the one that was given last. */
  #both: { given: AbortSignal; signal: AbortSignal } | undefined;

  /** @internal */
  constructor(
    client: Native.Client,
    topic: string,
    options: ConsumerOptions<K, V>,
    deadLetters: DeadLetters,
    forget: (consumer: Consumer<K, V>) => void,
  ) {
    const { key: _key, value: _value, onDecodeError: _policy, deadLetterTopic: _letters, signal, ...settings } = options;
    this.topic = topic;
    this.#decoding = new Decoding(options, deadLetters);
    check(signal);
    this.#signal = signal;
    this.#forget = forget;
    try {
      this.#native = client.consumer(topic, stringify(toWire(withPlaces(settings))));
    } catch (thrown) {
      throw toError(thrown);
    }
    opened(this);
  }

  /** Opens the partitions now rather than with the first read; throws what is wrong with the topic, the partitions or the start. */
  async open(options: Waiting = {}): Promise<void> {
    this.#checkOpen();
    await call(this.#either(options.signal), (cancel) => this.#native.open(cancel));
  }

  /**
   * The next record; undefined once nothing will come any more: the consumer was closed, or `untilEnd` is reached. Once every
   * partition has failed it throws the last failure each time, until a `seek`.
   */
  async next(options: Waiting = {}): Promise<Message<K, V> | undefined> {
    this.#checkOpen();
    return await this.#next(options.signal);
  }

  async #next(given: AbortSignal | undefined): Promise<Message<K, V> | undefined> {
    const signal = this.#either(given);
    check(signal);
    for (;;) {
      const message = this.#take();
      if (message instanceof Message) return message;
      if (message) await waitFor(message, signal);
      else if (!(await this.#fill(signal))) return undefined;
    }
  }

  /** Not a `then`: V8 follows what is awaited, so that an error shows the line of the loop. */
  async #nextResult(): Promise<IteratorResult<Message<K, V>>> {
    const value = await this.#next(undefined);
    return value ? { done: false, value } : { done: true, value: undefined };
  }

  /** The records, one by one. Ends quietly when the consumer is closed. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<K, V>> {
    this.#checkOpen();
    const iterator: AsyncIterableIterator<Message<K, V>> = {
      next: () => {
        // What is here already takes no turn of the event loop; the next read from the native half does.
        if (!this.#signal?.aborted) {
          try {
            const message = this.#take();
            if (message instanceof Message) return Promise.resolve({ done: false, value: message });
          } catch (error) {
            return Promise.reject(error);
          }
        }
        return this.#nextResult();
      },
      return: () => Promise.resolve({ done: true, value: undefined }),
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** The records in batches, as large as is wanted. */
  async *batches(options: BatchOptions = {}): AsyncGenerator<Batch<K, V>, void, undefined> {
    this.#checkOpen();
    known(options, 'batches', ['maxRecords', 'maxWaitMs', 'signal']);
    for (;;) {
      const batch = await this.#batch(options);
      if (!batch) return;
      yield batch;
    }
  }

  /** The records as a stream of objects, for `pipeline` and the like. What it has read ahead and nobody has read from it is not handed out again. */
  stream(options: StreamOptions = {}): MessageStream<K, V> {
    this.#checkOpen();
    known(options, 'a stream', ['highWaterMarkBytes', 'signal']);
    const limit = positive(options.highWaterMarkBytes ?? HIGH_WATER_MARK_BYTES, 'highWaterMarkBytes');
    const source = { next: (signal: AbortSignal) => this.#next(signal), take: () => this.#take(), shelf: this.#shelf };
    return streamOf<K, V>(source, limit, options.signal);
  }

  /**
   * Calls a handler with each record or each batch, one after the other, until the consumer is closed or the signal is aborted; then it waits for the
   * handler that runs and ends. What a handler throws is thrown here, and counts as handled: the next read begins behind that record, or that batch.
   */
  async run(options: RunOptions<K, V>): Promise<void> {
    this.#checkOpen();
    known(options ?? {}, 'run', ['eachMessage', 'eachBatch', 'maxRecords', 'maxWaitMs', 'signal']);
    await runHandlers(options, { message: (signal) => this.#next(signal), batch: (rest) => this.#batch(rest) });
  }

  /** Goes on from another place, in one partition or in all. A partition that has failed is taken up again. After an error nothing has changed. */
  async seek(to: Place, options: Waiting & { partition?: number | undefined } = {}): Promise<void> {
    const wire = stringify(place(to));
    const partition = partitionNumber(options.partition);
    await this.#commanded(async () => {
      await call(this.#either(options.signal), (cancel) => this.#native.seek(partition, wire, cancel));
      this.#shelf.forget(partition);
      this.#ended = false;
    });
  }

  /** Hands out no more records of a partition, or of all, until {@link Consumer.resume}. Nothing that was read ahead is lost. */
  async pause(partition?: number, options: Waiting = {}): Promise<void> {
    check(options.signal);
    partitionNumber(partition);
    await this.#commanded(async () => {
      const signal = this.#either(options.signal);
      const numbers = await this.#numbers(partition, signal);
      await call(signal, () => this.#native.pause(partition));
      this.#shelf.pause(numbers);
    });
  }

  /** Goes on with a partition, or with all that are paused. */
  async resume(partition?: number, options: Waiting = {}): Promise<void> {
    partitionNumber(partition);
    await this.#commanded(async () => {
      await call(this.#either(options.signal), (cancel) => this.#native.resume(partition, cancel));
      this.#shelf.resume(partition);
    });
  }

  /** The offset of the next record that is handed out of this partition. */
  async position(partition: number, options: Waiting = {}): Promise<bigint> {
    partitionNumber(partition);
    const state = (await this.partitions(options)).find((found) => found.partition === partition);
    if (!state) throw invalid(`partition ${partition} is not one of those that this consumer reads`);
    return state.position;
  }

  /** How the partitions are doing, in order. */
  async partitions(options: Waiting = {}): Promise<PartitionState[]> {
    return await this.#commanded(async () => {
      const states = await call(this.#either(options.signal), (cancel) => this.#native.partitions(cancel));
      return states.map((state) => ({ ...state, position: this.#shelf.position(state.partition) ?? state.position }));
    });
  }

  /** Ends it: loops and streams end, `run` ends. Closing it again does nothing. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#shelf.forget();
    this.#wake();
    this.#forget(this);
    isClosed(this);
    await this.#native.close();
  }

  /** Closes it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What `console.log` shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { topic } = this;
    return `Consumer ${inspect({ topic, isReading: this.#reading !== undefined, isClosed: this.#isClosed }, options)}`;
  }

  /** @internal */
  describe(): OpenHandle {
    return { kind: 'consumer', name: this.topic, waitsFor: this.#reading ? 'the next record' : undefined };
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closed('consumer');
  }

  #either(signal: AbortSignal | undefined): AbortSignal | undefined {
    if (!signal || !this.#signal) return signal ?? this.#signal;
    // A loop gives the same one for each record.
    if (this.#both?.given !== signal) this.#both = { given: signal, signal: AbortSignal.any([signal, this.#signal]) };
    return this.#both.signal;
  }

  /** As {@link Decoding.take}. */
  #take(): Message<K, V> | Promise<void> | undefined {
    return this.#decoding.take(this.#shelf);
  }

  /** Waits until something more is here; false once nothing will come any more. */
  async #fill(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#command) {
      // It may have brought back what was put aside.
      await waitFor(this.#command.catch(() => undefined), signal);
      return true;
    }
    if (this.#isClosed || this.#ended) {
      if (!this.#shelf.isEmpty) return true;
      if (this.#isClosed || !this.#shelf.hasParked) return false;
      await this.#changed(signal);
      return true;
    }
    const reading = (this.#reading ??= this.#read());
    reading.waiting++;
    try {
      await waitFor(reading.done, signal);
    } catch (error) {
      throw here(error);
    } finally {
      // Nobody wants it any more: what arrives all the same stays for the next who does.
      if (--reading.waiting === 0) reading.cancel.cancel();
    }
    return true;
  }

  #read(): { done: Promise<void>; cancel: Native.Cancel; waiting: number } {
    const cancel = new native.Cancel();
    const read = async (): Promise<void> => {
      try {
        const chunk = await this.#native.read(cancel);
        if (this.#isClosed) return;
        if (chunk) {
          this.#shelf.push(chunk);
        } else this.#ended = true;
      } catch (thrown) {
        const error = toError(thrown);
        const isExpected = error instanceof MillpondError && (error.code === CANCELLED || (error.code === 'closed' && this.#isClosed));
        if (isExpected) return;
        // Where nobody waits any more, the next who does is told.
        if (this.#reading?.waiting === 0) this.#shelf.fail(error);
        else throw error;
      } finally {
        this.#reading = undefined;
      }
    };
    const done = read();
    // Whoever waits hears of it; where nobody does any more, it was cancelled.
    done.catch(() => undefined);
    return { done, cancel, waiting: 0 };
  }

  /** Does something that must not meet a read that is under way: that is called off, and taken up again by who waits for it. */
  async #commanded<T>(command: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    const before = this.#command;
    const run = async (): Promise<T> => {
      await before?.catch(() => undefined);
      const reading = this.#reading;
      reading?.cancel.cancel();
      await reading?.done.catch(() => undefined);
      return await command();
    };
    const running = run();
    this.#command = running;
    try {
      return await running;
    } finally {
      if (this.#command === running) this.#command = undefined;
      this.#wake();
    }
  }

  /** Waits until a command has changed something: all that is left belongs to partitions that are paused. */
  async #changed(signal: AbortSignal | undefined): Promise<void> {
    // The process goes on, as it does while the next record is waited for.
    const alive = setInterval(() => undefined, TIMER_MS_MAX);
    try {
      await waitFor(new Promise<void>((resolve) => this.#sleeping.push(resolve)), signal);
    } finally {
      clearInterval(alive);
    }
  }

  #wake(): void {
    const sleeping = this.#sleeping;
    this.#sleeping = [];
    for (const wake of sleeping) wake();
  }

  async #numbers(partition: number | undefined, signal: AbortSignal | undefined): Promise<number[]> {
    if (partition !== undefined) return [partition];
    return (await call(signal, (cancel) => this.#native.partitions(cancel))).map((state) => state.partition);
  }

  /** Nothing is taken before it is handed out, so that a seek or a pause in the meantime counts for all of it. */
  async #batch(options: BatchOptions): Promise<Batch<K, V> | undefined> {
    const most = positive(options.maxRecords ?? MAX_RECORDS, 'maxRecords');
    const wait = checkMs(options.maxWaitMs ?? 0, 'maxWaitMs');
    const given = this.#either(options.signal);
    check(given);
    for (;;) {
      if (!(await this.#gathered(most, wait, given))) return undefined;
      const batch = await this.#takeBatch(most, given);
      // All of them may have been left out.
      if (batch.length > 0) return batch;
    }
  }

  /** Waits for so many records, or as long as that after the first one; false where none will come any more. */
  async #gathered(most: number, wait: number, given: AbortSignal | undefined): Promise<boolean> {
    let until: AbortSignal | undefined;
    while (this.#shelf.isShortOf(most)) {
      const isEmpty = this.#shelf.isEmpty;
      if (!isEmpty) {
        if (wait === 0 || this.#ended) break;
        until ??= after(wait);
        if (until.aborted || given?.aborted) break;
      }
      try {
        const signal = isEmpty || !until ? given : given ? AbortSignal.any([until, given]) : until;
        if (!(await this.#fill(signal))) return false;
      } catch (error) {
        // What is here is the batch, and nothing of it is lost.
        if (this.#shelf.isEmpty) throw error;
        if (!(error instanceof AbortError)) this.#shelf.fail(error);
        break;
      }
    }
    return true;
  }

  async #takeBatch(most: number, given: AbortSignal | undefined): Promise<Batch<K, V>> {
    const spans: Span<K, V>[] = [];
    let count = 0;
    while (count < most) {
      try {
        const taken = this.#takeSpan(spans, most - count);
        if (taken === 0) break;
        if (taken instanceof Promise) await waitFor(taken, given);
        else count += taken;
      } catch (error) {
        if (count === 0) throw error;
        if (!(error instanceof AbortError)) this.#shelf.fail(error);
        break;
      }
    }
    return new Batch(spans);
  }

  /** Puts at most `most` of the records that are here behind the others of a batch, and says how many; a promise as for {@link Consumer.#take}. */
  #takeSpan(spans: Span<K, V>[], most: number): number | Promise<void> {
    if (!this.#decoding.isRaw) {
      const message = this.#take();
      if (!(message instanceof Message)) return message ?? 0;
      const last = spans.at(-1);
      if (Array.isArray(last)) last.push(message);
      else spans.push([message]);
      return 1;
    }
    this.#shelf.check();
    const rest = this.#shelf.first;
    if (!rest) return 0;
    const { chunk, next } = rest;
    const count = Math.min(chunk.offsets.length - next, most);
    rest.next += count;
    spans.push({ chunk, start: next, end: next + count });
    return count;
  }
}
