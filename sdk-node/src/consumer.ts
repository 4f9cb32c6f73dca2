/** Reading records: one by one, in batches, as a stream, or with handlers. */

import { Readable } from 'node:stream';
import { inspect, type InspectOptions } from 'node:util';
import { after, call, check, checkMs, waitFor, type Waiting } from './abort.js';
import {
  checkPolicy,
  decodeError,
  deserializer,
  place,
  positive,
  withPlaces,
  type BatchOptions,
  type ConsumerOptions,
  type DeadLetters,
  type MessageStream,
  type OnDecodeError,
  type PartitionState,
  type Place,
  type RunOptions,
  type StreamOptions,
} from './consumer-options.js';
import { AbortError, CANCELLED, MillpondError, closed, here, invalid, toError } from './errors.js';
import { closed as isClosed, opened, type OpenHandle } from './handles.js';
import { stringify, toWire } from './json.js';
import { AS_SENT, Batch, Message, rawKey, rawValue, sizeOf, type Chunk, type Span } from './message.js';
import { native, type Native } from './native.js';
import { runHandlers } from './run.js';
import { BUFFER, type Deserializer } from './serializers.js';

/** Records of a chunk that were not handed out. */
interface Rest {
  readonly chunk: Chunk;
  next: number;
}

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
  readonly #key: Deserializer<K>;
  readonly #value: Deserializer<V>;
  readonly #isRaw: boolean;
  readonly #onDecodeError: OnDecodeError;
  readonly #deadLetterTopic: string | undefined;
  readonly #deadLetters: DeadLetters;
  readonly #signal: AbortSignal | undefined;
  readonly #forget: (consumer: Consumer<K, V>) => void;
  /** What was read and not handed out; the first is the one that records are taken from. */
  #rests: Rest[] = [];
  /** The same of partitions that are paused. */
  #parked: Rest[] = [];
  readonly #paused = new Set<number>();
  /** The one read that is under way, shared by all who wait. */
  #reading: { done: Promise<void>; cancel: Native.Cancel; waiting: number } | undefined;
  /** A command that is under way: nothing is read meanwhile. */
  #command: Promise<unknown> | undefined;
  #ended = false;
  #isClosed = false;
  /** What went wrong behind records that were handed out already: the next read tells. */
  #pending: { error: unknown } | undefined;

  /** @internal */
  constructor(
    client: Native.Client,
    topic: string,
    options: ConsumerOptions<K, V>,
    deadLetters: DeadLetters,
    forget: (consumer: Consumer<K, V>) => void,
  ) {
    const { key, value, onDecodeError = 'raise', deadLetterTopic, signal, ...settings } = options;
    this.topic = topic;
    this.#key = deserializer(key, 'key');
    this.#value = deserializer(value, 'value');
    this.#isRaw = (key === undefined || (key as unknown) === BUFFER) && (value === undefined || (value as unknown) === BUFFER);
    checkPolicy(onDecodeError, deadLetterTopic);
    check(signal);
    this.#onDecodeError = onDecodeError;
    this.#deadLetterTopic = deadLetterTopic;
    this.#deadLetters = deadLetters;
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
      if (message) await message;
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
            if (message) return message.then(() => iterator.next());
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
    for (;;) {
      const batch = await this.#batch(options);
      if (!batch) return;
      yield batch;
    }
  }

  /** The records as a stream of objects, for `pipeline` and the like. What it has read ahead and nobody has read from it is not handed out again. */
  stream(options: StreamOptions = {}): MessageStream<K, V> {
    this.#checkOpen();
    const limit = positive(options.highWaterMarkBytes ?? HIGH_WATER_MARK_BYTES, 'highWaterMarkBytes');
    const stop = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
    const fill = async (stream: Readable): Promise<void> => {
      const first = await this.#next(signal);
      stream.push(first ?? null);
      let bytes = first ? (first.rawKey?.length ?? 0) + (first.rawValue?.length ?? 0) : limit;
      while (bytes < limit) {
        const rest = this.#rests[0];
        const size = rest && rest.next < rest.chunk.offsets.length ? sizeOf(rest.chunk, rest.next) : limit;
        if (bytes + size > limit) return;
        try {
          const message = this.#take();
          if (!message) return;
          if (message instanceof Message) {
            bytes += size;
            stream.push(message);
          } else await message;
        } catch (error) {
          // Once what lies before it was read from the stream.
          this.#pending = { error };
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

  /**
   * Calls a handler with each record or each batch, one after the other, until the consumer is closed or the signal is aborted; then it waits for the
   * handler that runs and ends. What a handler throws is thrown here.
   */
  async run(options: RunOptions<K, V>): Promise<void> {
    this.#checkOpen();
    await runHandlers(options, { message: (signal) => this.#next(signal), batch: (rest) => this.#batch(rest) });
  }

  /** Goes on from another place, in one partition or in all. A partition that has failed is taken up again. After an error nothing has changed. */
  async seek(to: Place, options: Waiting & { partition?: number | undefined } = {}): Promise<void> {
    const wire = stringify(place(to));
    const { partition } = options;
    await this.#commanded(async () => {
      await call(this.#either(options.signal), (cancel) => this.#native.seek(partition, wire, cancel));
      const stays = (rest: Rest): boolean => partition !== undefined && rest.chunk.partition !== partition;
      this.#rests = this.#rests.filter(stays);
      this.#parked = this.#parked.filter(stays);
      this.#ended = false;
    });
  }

  /** Hands out no more records of a partition, or of all, until {@link Consumer.resume}. Nothing that was read ahead is lost. */
  async pause(partition?: number, options: Waiting = {}): Promise<void> {
    check(options.signal);
    await this.#commanded(async () => {
      const signal = this.#either(options.signal);
      const numbers = await this.#numbers(partition, signal);
      await call(signal, () => this.#native.pause(partition));
      for (const number of numbers) this.#paused.add(number);
      this.#park();
    });
  }

  /** Goes on with a partition, or with all that are paused. */
  async resume(partition?: number, options: Waiting = {}): Promise<void> {
    await this.#commanded(async () => {
      await call(this.#either(options.signal), (cancel) => this.#native.resume(partition, cancel));
      if (partition === undefined) this.#paused.clear();
      else this.#paused.delete(partition);
      const parked = this.#parked;
      this.#parked = [];
      this.#rests = [...parked, ...this.#rests];
      this.#park();
    });
  }

  /** The offset of the next record that is handed out of this partition. */
  async position(partition: number, options: Waiting = {}): Promise<bigint> {
    const state = (await this.partitions(options)).find((found) => found.partition === partition);
    if (!state) throw invalid(`partition ${partition} is not one of those that this consumer reads`);
    return state.position;
  }

  /** How the partitions are doing, in order. */
  async partitions(options: Waiting = {}): Promise<PartitionState[]> {
    return await this.#commanded(async () => {
      const states = await call(this.#either(options.signal), (cancel) => this.#native.partitions(cancel));
      return states.map((state) => {
        const rest = [...this.#rests, ...this.#parked].find(({ chunk }) => chunk.partition === state.partition);
        return rest ? { ...state, position: rest.chunk.offsets[rest.next] ?? rest.chunk.nextOffset } : state;
      });
    });
  }

  /** Ends it: loops and streams end, `run` ends. Closing it again does nothing. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#rests = [];
    this.#parked = [];
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
    if (signal && this.#signal) return AbortSignal.any([signal, this.#signal]);
    return signal ?? this.#signal;
  }

  /** The next record that is here; a promise where it has to be waited for a dead letter first; undefined where nothing is here. */
  #take(): Message<K, V> | Promise<void> | undefined {
    if (this.#pending) {
      const { error } = this.#pending;
      this.#pending = undefined;
      throw error;
    }
    for (;;) {
      const rest = this.#rests[0];
      if (!rest) return undefined;
      const { chunk } = rest;
      if (rest.next >= chunk.offsets.length) {
        this.#rests.shift();
        continue;
      }
      const index = rest.next++;
      if (this.#isRaw) return new Message(chunk, index);
      const message = this.#decode(chunk, index);
      if (message instanceof Promise) return message.catch((error: unknown) => this.#takeBack(rest, index, error));
      if (message) return message;
    }
  }

  /** A dead letter that could not be stored: the next read tries again, so that its record is not lost. */
  #takeBack(rest: Rest, index: number, error: unknown): never {
    if (rest.next === index + 1 && !this.#isClosed) {
      rest.next = index;
      if (!this.#rests.includes(rest) && !this.#parked.includes(rest)) this.#rests.unshift(rest);
    }
    throw error;
  }

  #decode(chunk: Chunk, index: number): Message<K, V> | Promise<void> | undefined {
    let part: 'key' | 'value' = 'key';
    try {
      const keyBytes = rawKey(chunk, index);
      const key = keyBytes && this.#key.deserialize(keyBytes);
      part = 'value';
      const valueBytes = rawValue(chunk, index);
      return new Message(chunk, index, key, valueBytes && this.#value.deserialize(valueBytes));
    } catch (cause) {
      const error = decodeError(chunk, index, part, cause);
      switch (this.#onDecodeError) {
        case 'raise':
          throw error;
        case 'skip':
          return undefined;
        case 'raw':
          return new Message<K, V>(chunk, index, AS_SENT, AS_SENT, error);
        case 'dead-letter':
          return this.#deadLetters(this.#deadLetterTopic as string, chunk, index, error);
      }
    }
  }

  /** Waits until something more is here; false once nothing will come any more. */
  async #fill(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#command) {
      // It may have brought back what was put aside.
      await waitFor(this.#command.catch(() => undefined), signal);
      return true;
    }
    if (this.#isClosed || this.#ended) return this.#rests.length > 0 || this.#pending !== undefined;
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
          this.#rests.push({ chunk, next: 0 });
          this.#park();
        } else this.#ended = true;
      } catch (thrown) {
        const error = toError(thrown);
        const isExpected = error instanceof MillpondError && (error.code === CANCELLED || (error.code === 'closed' && this.#isClosed));
        if (isExpected) return;
        // Where nobody waits any more, the next who does is told.
        if (this.#reading?.waiting === 0) this.#pending = { error };
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
    }
  }

  async #numbers(partition: number | undefined, signal: AbortSignal | undefined): Promise<number[]> {
    if (partition !== undefined) return [partition];
    return (await call(signal, (cancel) => this.#native.partitions(cancel))).map((state) => state.partition);
  }

  /** Puts aside what belongs to partitions that are paused. */
  #park(): void {
    if (this.#paused.size === 0) return;
    const isPaused = (rest: Rest): boolean => this.#paused.has(rest.chunk.partition);
    this.#parked.push(...this.#rests.filter(isPaused));
    this.#rests = this.#rests.filter((rest) => !isPaused(rest));
  }

  async #batch(options: BatchOptions): Promise<Batch<K, V> | undefined> {
    const most = positive(options.maxRecords ?? MAX_RECORDS, 'maxRecords');
    const wait = checkMs(options.maxWaitMs ?? 0, 'maxWaitMs');
    const given = this.#either(options.signal);
    check(given);
    const spans: Span<K, V>[] = [];
    let count = 0;
    let until: AbortSignal | undefined;
    for (;;) {
      try {
        const taken = this.#takeSpan(spans, most - count);
        if (taken instanceof Promise) await taken;
        else count += taken;
        if (count >= most) break;
        if (taken !== 0) continue;
        if (count === 0) {
          if (!(await this.#fill(given))) return undefined;
          continue;
        }
        // Where no more is waited for, or the wait ended: what is here is the batch, and nothing of it is lost.
        if (wait === 0) break;
        until ??= after(wait);
        if (until.aborted || given?.aborted || !(await this.#fill(given ? AbortSignal.any([until, given]) : until))) break;
      } catch (error) {
        if (count === 0) throw error;
        if (error instanceof AbortError) break;
        this.#pending = { error };
        break;
      }
    }
    return new Batch(spans);
  }

  /** Puts at most `most` of the records that are here behind the others of a batch, and says how many; a promise as for {@link Consumer.#take}. */
  #takeSpan(spans: Span<K, V>[], most: number): number | Promise<void> {
    if (!this.#isRaw || this.#pending) {
      const message = this.#take();
      if (!(message instanceof Message)) return message ?? 0;
      const last = spans.at(-1);
      if (Array.isArray(last)) last.push(message);
      else spans.push([message]);
      return 1;
    }
    for (;;) {
      const rest = this.#rests[0];
      if (!rest) return 0;
      const { chunk, next } = rest;
      const count = Math.min(chunk.offsets.length - next, most);
      if (count > 0) {
        rest.next += count;
        spans.push({ chunk, start: next, end: next + count });
        return count;
      }
      this.#rests.shift();
    }
  }
}
