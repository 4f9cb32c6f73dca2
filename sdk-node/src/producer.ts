/** Sending records. What is sent in one turn of the event loop goes over to the native half in one call; answers come back many at a time. */

import { inspect, type InspectOptions } from 'node:util';
import { after, check, checkMs, onAbort, waitFor, type Waiting } from './abort.js';
import { Each, Many, fail, waiter, type Places, type RecordPlace, type Sending, type Waiter } from './answers.js';
import { AbortError, ClosedError, EncodeError, MillpondError, TimeoutError, closed, here, toError, wrongType, type CallSite } from './errors.js';
import { closed as isClosed, opened, type OpenHandle } from './handles.js';
import { stringify, toWire } from './json.js';
import { type Native } from './native.js';
import { Packer, pairsOf, partitionOf, timestampOf } from './packer.js';
import { BUFFER, kindOf, type Bytes, type Serializer } from './serializers.js';

/** Names and values of headers: an object, or pairs where a name occurs more than once. */
export type HeadersInit = Readonly<Record<string, Bytes | null>> | Iterable<readonly [name: string, value: Bytes | null]>;

/** A record to be sent. */
export interface NewRecord<K = Bytes, V = Bytes> {
  /** Decides about the partition: records with the same key go to the same one. */
  key?: K | null | undefined;
  /** The payload; null is a tombstone, which says that the key's value is gone. */
  value?: V | null | undefined;
  /** More about it. */
  headers?: HeadersInit | undefined;
  /** When it was made; now where it is not set. A number is in milliseconds since 1970-01-01 UTC. */
  timestamp?: Date | number | undefined;
  /** The partition, if it is decided already. */
  partition?: number | undefined;
}

/** How to send. What is not set is as the core has it. */
export interface ProducerSettings {
  /** When a batch counts as full, in bytes before compression; 1 MiB. */
  batchBytes?: number | undefined;
  /** How long a record waits for others while a batch of its partition is in flight, in milliseconds; 5. */
  lingerMs?: number | undefined;
  /** How batches are compressed; not at all. */
  compression?: 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd' | undefined;
  /** Bytes of records that may wait for their answers before `sendMany` and `ready` wait; 32 MiB. */
  bufferBytes?: number | undefined;
  /** Batches of a partition that may be in flight, 1 to 5; 5. */
  inFlight?: number | undefined;
  /** How long a record may take from being sent to its answer, reconnecting included, in milliseconds; 120,000. */
  deliveryTimeoutMs?: number | undefined;
  /** Whether a batch is sent again after the connection was lost; yes. */
  retry?: boolean | undefined;
  /** Whether batches are numbered, so that one that is sent again is stored once (KIP-98); yes. */
  idempotence?: boolean | undefined;
}

/** What makes bytes of keys and values. */
export interface ProducerOptions<K = Bytes, V = Bytes> extends ProducerSettings {
  /** For keys; strings and bytes are taken where it is not set. */
  key?: Serializer<K> | undefined;
  /** For values; strings and bytes are taken where it is not set. */
  value?: Serializer<V> | undefined;
}

/** What a producer has done so far. */
export interface ProducerStats {
  /** Records that are stored. */
  readonly records: number;
  /** Of these, records that a transform has left out. */
  readonly recordsDropped: number;
  /** Records that could not be sent. */
  readonly recordsFailed: number;
  /** Records that were sent more than once. */
  readonly recordsResent: number;
  /** Bytes of their batches, as they travelled. */
  readonly bytes: number;
  /** Batches that were acknowledged. */
  readonly batches: number;
  /** Batches that were sent again. */
  readonly retries: number;
  /** Bytes of records that wait for their answers. */
  readonly bufferedBytes: number;
  /** Half of the batches were answered within so many milliseconds. */
  readonly ackLatencyP50Ms: number;
  /** 99 of 100 were. */
  readonly ackLatencyP99Ms: number;
}

const DEFAULT_BUFFER_BYTES = 32 << 20;

/** How to close what has sent records. */
export interface CloseOptions extends Waiting {
  /** How long to wait for the answers to records that were sent, in milliseconds; 30,000. */
  timeoutMs?: number | undefined;
}

/** How long `close` waits for answers where nothing else is said, in milliseconds. */
const CLOSE_TIMEOUT_MS = 30_000;

/** Sends records to one topic. From `client.producer`; opened when it is first used. */
export class Producer<K = Bytes, V = Bytes> implements AsyncDisposable {
  /** The topic. */
  readonly topic: string;
  readonly #native: Native.Producer;
  readonly #key: Serializer<K>;
  readonly #value: Serializer<V>;
  readonly #bufferBytes: number;
  readonly #packer = new Packer();
  readonly #sendings = new Map<number, Sending>();
  readonly #forget: (producer: Producer<K, V>) => void;
  /** Whose records are packed: those of a `sendMany`, or of `send` where it is undefined. */
  #packing: Many | undefined;
  #waiters: Waiter[] = [];
  /** Where the first of them was sent. */
  #site: CallSite | undefined;
  #nextSending = 0;
  #unanswered = 0;
  #isScheduled = false;
  #isListening = false;
  #closing: Promise<void> | undefined;
  #failure: Error | undefined;
  /** Ends when the last record that was refused at once is told. */
  #refused: Promise<void> | undefined;
  #settled: (() => void)[] = [];
  /** When the event loop had its last turn, as far as is known. */
  #turnAt = performance.now();
  /** Records whose names were not looked at yet. */
  #toCheck = NAMES_CHECKED;

  /** @internal */
  constructor(client: Native.Client, topic: string, options: ProducerOptions<K, V>, forget: (producer: Producer<K, V>) => void) {
    const { key, value, ...settings } = options;
    this.topic = topic;
    this.#key = serializer(key, 'key');
    this.#value = serializer(value, 'value');
    this.#bufferBytes = settings.bufferBytes ?? DEFAULT_BUFFER_BYTES;
    this.#forget = forget;
    try {
      this.#native = client.producer(topic, stringify(toWire(settings)));
    } catch (thrown) {
      throw toError(thrown);
    }
    opened(this);
  }

  /**
   * Sends a record. The promise is fulfilled once the broker has stored it as its topic demands, and rejected if that failed for good.
   *
   * Records that are sent without waiting share batches. A record whose promise nobody looks at is sent all the same, and `flush` and `close` tell if
   * it failed. Key, value and headers are copied at once. `send` itself never waits: where you send faster than the broker stores for long, await
   * {@link Producer.ready} now and then, or use {@link Producer.sendMany}. Aborting the signal ends the wait and not the sending.
   */
  send(record: NewRecord<K, V>, options?: Waiting): Promise<RecordPlace> {
    const sent = waiter();
    try {
      if (options) check(options.signal);
      this.#pack(record, undefined);
    } catch (error) {
      // Of what is sent behind `close` there will be no `flush` that tells.
      if (this.#closing) sent.reject(error as Error);
      else this.#refused = this.#refuse(sent, error as Error);
      return sent.promise;
    }
    if (this.#waiters.length === 0) {
      // One for all that one turn of the event loop sends: taking it for each would cost more than sending it.
      this.#site = {};
      Error.captureStackTrace(this.#site, this.send);
    }
    this.#waiters.push(sent);
    const signal = options?.signal;
    if (signal) sent.forget = onAbort(signal, () => void fail(sent, new AbortError(signal.reason, true)));
    if (this.#packer.isFull) this.#handOver();
    else this.#schedule();
    return sent.promise;
  }

  /** Rejects it once whoever looks at it has had the time to. */
  async #refuse(sent: Waiter, error: Error): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (!fail(sent, error)) this.#failure ??= error;
  }

  /**
   * Sends many records and waits for all their answers; at most the producer's buffer of them is in memory at a time, so the source may have
   * millions. Rejects with the first failure once all are answered; a
   * record that cannot be sent at all ends it at once, and what was taken before is sent. Aborting the signal takes no more from the source and ends the wait;
   * what was taken is sent.
   */
  async sendMany(records: Iterable<NewRecord<K, V>> | AsyncIterable<NewRecord<K, V>>, options: Waiting = {}): Promise<Places> {
    check(options.signal);
    if (!isIterable(records)) {
      throw wrongType(`\`sendMany\` takes an iterable of records, such as an array, and this is ${kindOf(records)}`, 'one record is for `send`');
    }
    const many = new Many();
    const { signal } = options;
    try {
      if (Symbol.asyncIterator in records) {
        await each(records, signal, (record) => this.#add(record, many, signal));
      } else {
        // A loop of its own for what is there already: awaiting each record would cost more than sending it.
        for (const record of records) {
          if (signal?.aborted) check(signal);
          const room = this.#add(record, many, signal);
          if (room) await room;
        }
      }
    } catch (error) {
      if (error instanceof AbortError && signal?.aborted) throw new AbortError(signal.reason, many.isBegun);
      throw error;
    } finally {
      if (this.#packing === many) this.#handOver();
    }
    try {
      return await waitFor(many.done(), signal, true);
    } catch (error) {
      throw here(error);
    }
  }

  /** Waits until there is room in the buffer, and gives the event loop a turn where it had none for some milliseconds. */
  async ready(options: Waiting = {}): Promise<void> {
    this.#handOver();
    while (this.#unanswered > this.#bufferBytes) {
      await waitFor(new Promise<void>((resolve) => this.#settled.push(resolve)), options.signal);
    }
    if (performance.now() - this.#turnAt > TURN_MS) {
      await new Promise((resolve) => setImmediate(resolve));
      this.#turnAt = performance.now();
    }
    check(options.signal);
  }

  /**
   * Waits until everything that was sent before is answered. Rejects with the first failure since the last flush of a record whose promise nobody
   * looked at.
   */
  async flush(options: Waiting = {}): Promise<void> {
    check(options.signal);
    this.#handOver();
    this.#native.hurry();
    const last = this.#nextSending;
    // They are there in the order in which they were handed over.
    const oldest = (): number => this.#sendings.keys().next().value ?? last;
    while (oldest() < last) await waitFor(new Promise<void>((resolve) => this.#settled.push(resolve)), options.signal, true);
    await this.#refused;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw here(failure);
  }

  /**
   * Takes no more records and waits for the answers to all that were sent, at most `timeoutMs` (30,000). What has no answer then is given up: its
   * promises are rejected with the code `closed`. Rejects as {@link Producer.flush} does, and is closed in any case.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    if (!this.#closing) {
      // Wrong options are told, and nothing is closed.
      const signal = withTimeout(options);
      this.#closing = this.#close(options, signal);
    }
    await this.#closing;
  }

  async #close(options: CloseOptions, signal: AbortSignal): Promise<void> {
    this.#handOver();
    try {
      await this.flush({ signal });
    } catch (error) {
      if (!signal.aborted || options.signal?.aborted) throw error;
      throw new TimeoutError(`the producer of \`${this.topic}\` was closed before the broker had answered all records`, {
        code: 'timed_out',
        maybeDone: true,
        hint: 'give `close` more time (`timeoutMs`), or look at what each `send` was answered',
        cause: error,
      });
    } finally {
      const error = new ClosedError('the producer was closed before the broker answered', { code: 'closed', maybeDone: true });
      for (const sending of this.#sendings.values()) sending.abandon(error);
      this.#sendings.clear();
      this.#native.close();
      this.#forget(this);
      isClosed(this);
    }
  }

  /** What it has done so far. */
  get stats(): ProducerStats {
    if (this.#closing) throw closed('producer');
    return this.#native.stats();
  }

  /** Closes it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What `console.log` shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    return `Producer ${inspect({ topic: this.topic, unanswered: this.#count(), isClosed: this.#closing !== undefined }, options)}`;
  }

  #count(): number {
    let count = this.#packer.count;
    for (const sending of this.#sendings.values()) count += sending.left;
    return count;
  }

  /** @internal */
  describe(): OpenHandle {
    const count = this.#count();
    const waitsFor = count > 0 ? `${count} ${count === 1 ? 'record is' : 'records are'} not answered` : undefined;
    return { kind: 'producer', name: this.topic, waitsFor };
  }

  #pack(record: NewRecord<K, V>, packing: Many | undefined): void {
    if (this.#closing) throw closed('producer');
    if (record === null || typeof record !== 'object') throw wrongType('a record is an object, as in { key, value, headers }');
    // A name that is wrong is wrong in the first records; looking at all would cost more than sending them.
    if (record.value === undefined || this.#toCheck > 0) {
      this.#toCheck--;
      checkNames(record);
    }
    const key = record.key == null ? null : encode(this.#key, record.key, 'key', this.topic);
    const value = record.value == null ? null : encode(this.#value, record.value, 'value', this.topic);
    const timestamp = timestampOf(record.timestamp);
    const partition = partitionOf(record.partition);
    const headers = pairsOf(record.headers);
    // Only here: serializers, getters and generators may have sent something themselves.
    if (this.#packing !== packing) {
      this.#handOver();
      this.#packing = packing;
    }
    this.#packer.add(key, value, timestamp, partition, headers);
    if (packing) packing.waiting++;
  }

  /** Packs a record of a `sendMany`; a promise where there is no room for the next one yet. */
  #add(record: NewRecord<K, V>, many: Many, signal: AbortSignal | undefined): Promise<void> | undefined {
    this.#pack(record, many);
    if (!this.#packer.isFull) {
      // A source that takes its time does not keep what it gave from being sent.
      this.#schedule();
      return undefined;
    }
    return this.ready({ signal });
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    process.nextTick(() => {
      this.#isScheduled = false;
      this.#handOver();
    });
  }

  /** What is packed goes over: it has one owner. */
  #handOver(): void {
    if (this.#packer.count === 0) return;
    if (this.#packing) {
      this.#give(this.#packing.part());
      return;
    }
    const waiters = this.#waiters;
    this.#waiters = [];
    this.#give(new Each(waiters, this.#site));
  }

  #give(sending: Sending): void {
    const number = this.#nextSending++;
    this.#sendings.set(number, sending);
    sending.bytes = this.#packer.bytes;
    this.#unanswered += sending.bytes;
    const { bytes, table } = this.#packer.take();
    try {
      this.#native.send(number, bytes, table);
    } catch (thrown) {
      this.#sendings.delete(number);
      this.#unanswered -= sending.bytes;
      sending.abandon(toError(thrown));
      return;
    }
    void this.#listen();
  }

  /** Takes answers for as long as some are missing. While it waits, the process goes on. */
  async #listen(): Promise<void> {
    if (this.#isListening) return;
    this.#isListening = true;
    try {
      while (this.#sendings.size > 0) this.#answer(await this.#native.answers());
    } finally {
      this.#isListening = false;
    }
  }

  #answer(answers: Native.Answers): void {
    this.#turnAt = performance.now();
    const failures = answers.failures.map(toError);
    for (let row = 0; row < answers.sendings.length; row++) {
      const number = answers.sendings[row] as number;
      const sending = this.#sendings.get(number);
      if (!sending) continue;
      const index = answers.indexes[row] as number;
      const count = answers.counts[row] as number;
      const failed = answers.failed[row] as number;
      if (failed >= 0) {
        const error = failures[failed] as Error;
        if (!sending.fail(index, count, error)) this.#failure ??= error;
      } else sending.settle(index, count, answers, row);
      sending.left -= count;
      if (sending.left === 0) {
        this.#sendings.delete(number);
        this.#unanswered -= sending.bytes;
      }
    }
    const settled = this.#settled;
    this.#settled = [];
    for (const wake of settled) wake();
  }
}

function encode<T>(by: Serializer<T>, what: T, part: 'key' | 'value', topic: string): Uint8Array | string {
  let bytes: unknown;
  try {
    bytes = by.serialize(what);
  } catch (cause) {
    if (cause instanceof MillpondError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new EncodeError(`the ${part} of a record for \`${topic}\` could not be serialized: ${reason}`, { code: 'encode_failed', cause });
  }
  if (typeof bytes !== 'string' && !(bytes instanceof Uint8Array)) {
    throw new EncodeError(`the serializer of the ${part} returned neither a string nor bytes`, { code: 'encode_failed' });
  }
  return bytes;
}

function serializer<T>(given: Serializer<T> | undefined, name: string): Serializer<T> {
  // Without one, what is sent is typed as bytes.
  if (given === undefined) return BUFFER as unknown as Serializer<T>;
  if (typeof given?.serialize !== 'function') throw wrongType(`\`${name}\` has no method \`serialize\``, 'as json(), string() and buffer() have');
  return given;
}

function isIterable(given: unknown): boolean {
  return given !== null && typeof given === 'object' && (Symbol.iterator in given || Symbol.asyncIterator in given);
}

/** A record that has no value by mistake, because its value has another name. */
function checkNames(record: object): void {
  for (const name in record) {
    if (!FIELDS.includes(name)) throw wrongType(`a record has no field \`${name}\``, `it has ${FIELDS.join(', ')}; a tombstone has \`value: null\``);
  }
}

/** Calls `take` with what an asynchronous source gives, one after the other; a signal ends the wait for a source that gives nothing. */
async function each<T>(source: AsyncIterable<T>, signal: AbortSignal | undefined, take: (one: T) => Promise<void> | undefined): Promise<void> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await waitFor(Promise.resolve(iterator.next()), signal);
      if (next.done) return;
      await take(next.value);
    }
  } catch (error) {
    // Not waited for: a source that stands still would not answer.
    Promise.resolve(iterator.return?.()).catch(() => undefined);
    throw error;
  }
}

/** The first records of a producer, whose names are looked at. */
const NAMES_CHECKED = 16;

/** The longest time without a turn of the event loop while records are sent, in milliseconds. */
const TURN_MS = 5;

const FIELDS: readonly string[] = ['key', 'value', 'headers', 'timestamp', 'partition'] satisfies (keyof NewRecord)[];

/** @internal */
export function withTimeout(options: CloseOptions): AbortSignal {
  check(options.signal);
  const timeout = after(checkMs(options.timeoutMs ?? CLOSE_TIMEOUT_MS, 'timeoutMs'));
  return options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
}
