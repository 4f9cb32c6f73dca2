/** What is read, from where, and how: the options of a consumer. */

import type { Readable } from 'node:stream';
import { inspect } from 'node:util';
import type { Waiting } from './abort.js';
import { DecodeError, invalid, wrongType } from './errors.js';
import { Message, type Batch, type Chunk } from './message.js';
import { BUFFER, type Deserializer } from './serializers.js';

/**
 * A place in a partition: its beginning, its end (what comes from now on), an offset, or the first record at or after a time. A time in milliseconds
 * is `{ timestampMs }`, so that no number is taken for another.
 */
export type Place = 'beginning' | 'end' | bigint | Date | AtOffset | AtTime;

/** Offsets by the numbers of their partitions. */
export type Offsets = ReadonlyMap<number, bigint | number> | Readonly<Record<number, bigint | number>>;

/** A place by its offset. */
export interface AtOffset {
  /** The offset. */
  readonly offset: bigint | number;
}

/** A place by its time. */
export interface AtTime {
  /** Milliseconds since 1970-01-01 UTC. */
  readonly timestampMs: number;
}

/**
 * What happens to a record whose key or value cannot be decoded. `raise`: a {@link DecodeError}; the next read goes on behind the record.
 * `skip`: it is left out. `raw`: it is handed out with the `Buffer` that was sent and {@link Message.decodeError}. `dead-letter`: it is sent to
 * {@link ConsumerOptions.deadLetterTopic}, and reading goes on once it is stored there.
 */
export type OnDecodeError = 'raise' | 'skip' | 'raw' | 'dead-letter';

/** What to read, and from where. */
export interface ConsumerOptions<K = Buffer, V = Buffer> {
  /** Where to begin in each partition; at the end when not set. */
  start?: Place | undefined;
  /**
   * Where to begin in single partitions, as a program has kept it: the offset of the next record of each, for instance a batch's
   * {@link Batch.nextOffsets}. The others begin at `start`.
   */
  offsets?: Offsets | undefined;
  /** The partitions; all when not set. */
  partitions?: readonly number[] | undefined;
  /** Whether to end where the topic ended when reading began; no. */
  untilEnd?: boolean | undefined;
  /** The view to read; the records as they are stored when not set. */
  view?: string | undefined;
  /** What happens where a partition does not reach to the offset to read from, because retention has passed it; an error. */
  onOutOfRange?: 'earliest' | 'latest' | 'error' | undefined;
  /** Makes keys of bytes; a `Buffer` where it is not set. */
  key?: Deserializer<K> | undefined;
  /** Makes values of bytes; a `Buffer` where it is not set. */
  value?: Deserializer<V> | undefined;
  /** What happens to a record that cannot be decoded; `raise`. */
  onDecodeError?: OnDecodeError | undefined;
  /** With `onDecodeError: 'dead-letter'`: where such records go. */
  deadLetterTopic?: string | undefined;
  /** Ends every wait of this consumer, with an {@link AbortError}. */
  signal?: AbortSignal | undefined;
}

/** How records are put together. */
export interface BatchOptions extends Waiting {
  /** The most records of a batch; 10,000. */
  maxRecords?: number | undefined;
  /**
   * How long after its first record a batch waits for more, in milliseconds; 0, so a batch is what is there. A batch has at least one record, however
   * long that takes.
   */
  maxWaitMs?: number | undefined;
}

/** How a stream reads. */
export interface StreamOptions extends Waiting {
  /** Bytes of keys, values and headers that the stream reads ahead of whoever reads from it; 1 MiB. */
  highWaterMarkBytes?: number | undefined;
}

/** What `run` calls; one of the two. */
export interface RunOptions<K = Buffer, V = Buffer> extends BatchOptions {
  /** Called with each record, one after the other. */
  eachMessage?: ((message: Message<K, V>) => unknown) | undefined;
  /** Called with each batch, one after the other. */
  eachBatch?: ((batch: Batch<K, V>) => unknown) | undefined;
}

/** A stream of records: what it is iterated over, and what a `data` event has, are messages. */
export type MessageStream<K = Buffer, V = Buffer> = Messages<K, V> & Readable;

/** What can be iterated over for messages. */
export interface Messages<K = Buffer, V = Buffer> {
  /** The records, one by one. */
  [Symbol.asyncIterator](): NodeJS.AsyncIterator<Message<K, V>>;
}

/** How a partition is doing. */
export interface PartitionState {
  /** Its number. */
  readonly partition: number;
  /** The offset of the next record that is handed out. */
  readonly position: bigint;
  /** Whether it is paused. */
  readonly paused: boolean;
  /** The first offset that is still there, as the broker said last. */
  readonly logStart: bigint;
  /** One past the last offset that can be read, as the broker said last. */
  readonly highWatermark: bigint;
}

const ON_DECODE_ERROR: readonly OnDecodeError[] = ['raise', 'skip', 'raw', 'dead-letter'];

/** @internal */
export function checkPolicy(onDecodeError: OnDecodeError, deadLetterTopic: string | undefined): void {
  if (!ON_DECODE_ERROR.includes(onDecodeError)) {
    throw invalid(`\`onDecodeError\` cannot be ${String(onDecodeError)}: it is one of ${ON_DECODE_ERROR.join(', ')}`);
  }
  if (onDecodeError === 'dead-letter' && !deadLetterTopic) {
    throw invalid('`onDecodeError: "dead-letter"` needs a topic', 'name it as `deadLetterTopic`');
  }
}

/** @internal */
export function decodeError(chunk: Chunk, index: number, part: 'key' | 'value', cause: unknown): DecodeError {
  const { topic, partition } = chunk;
  const offset = chunk.offsets[index] as bigint;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DecodeError(`the ${part} of ${topic}[${partition}] at offset ${offset} could not be decoded: ${reason}`, {
    code: 'decode_failed',
    hint: 'read on behind it, or make the consumer with `onDecodeError` as `skip`, `raw` or `dead-letter`',
    cause,
    topic,
    partition,
    offset,
    part,
    record: new Message(chunk, index),
  });
}

/** @internal */
export function deserializer<T>(given: Deserializer<T> | undefined, name: string): Deserializer<T> {
  // Without one, what is read is typed as a `Buffer`.
  if (given === undefined) return BUFFER as unknown as Deserializer<T>;
  if (typeof given?.deserialize !== 'function') throw wrongType(`\`${name}\` has no method \`deserialize\``, 'as json(), string() and buffer() have');
  return given;
}

/** A place as the core reads it. @internal */
export function place(at: Place): unknown {
  if (at === 'beginning' || at === 'end') return at;
  if (typeof at === 'bigint') return { offset: at };
  if (at instanceof Date && Number.isFinite(at.getTime())) return { timestamp_ms: at.getTime() };
  if (at !== null && typeof at === 'object' && 'offset' in at && isWhole(at.offset)) return { offset: BigInt(at.offset) };
  if (at !== null && typeof at === 'object' && 'timestampMs' in at && isWhole(at.timestampMs)) return { timestamp_ms: at.timestampMs };
  throw wrongType(`${inspect(at)} is no place in a partition`, 'it is "beginning", "end", an offset as a bigint, a Date, { offset } or { timestampMs }');
}

/** Settings with places and offsets as the core reads them. @internal */
export function withPlaces(settings: Pick<ConsumerOptions, 'start' | 'offsets'>): object {
  const { start, offsets: kept } = settings;
  return { ...settings, start: start === undefined ? undefined : place(start), offsets: kept === undefined ? undefined : offsets(kept) };
}

function offsets(given: Offsets): Record<string, bigint> {
  if (given === null || typeof given !== 'object') throw wrongType(`\`offsets\` cannot be ${inspect(given)}`, 'it is a Map, or an object, of partitions to offsets');
  const pairs: [unknown, bigint | number][] = given instanceof Map ? [...given] : Object.entries(given);
  return Object.fromEntries(
    pairs.map(([partition, offset]) => {
      if (!/^\d+$/.test(String(partition))) throw wrongType(`${inspect(partition)} in \`offsets\` is no partition`, 'partitions are numbers from 0 on');
      if (!isWhole(offset)) throw wrongType(`the offset of partition ${String(partition)} cannot be ${inspect(offset)}`, 'it is a bigint, or a whole number');
      return [String(partition), BigInt(offset)];
    }),
  );
}

function isWhole(number: unknown): boolean {
  return typeof number === 'bigint' || Number.isSafeInteger(number);
}

/** @internal */
export function positive(value: number, name: string): number {
  if (!(value >= 1) || (!Number.isInteger(value) && value !== Infinity)) throw invalid(`\`${name}\` cannot be ${String(value)}: it is a whole number from 1 on`);
  return value;
}

/** Refuses options with names that there are not. @internal */
export function known(options: object, of: string, names: readonly string[]): void {
  if (options === null || typeof options !== 'object') throw wrongType(`the options of ${of} are an object, and this is ${inspect(options)}`);
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw invalid(`\`${name}\` is no option of ${of}: there are ${names.join(', ')}`);
  }
}

const PARTITIONS_END = 2 ** 32;

/** @internal */
export function partitionNumber(given: number | undefined): number | undefined {
  if (given !== undefined && !(Number.isInteger(given) && given >= 0 && given < PARTITIONS_END)) {
    throw wrongType(`${inspect(given)} is no partition`, 'partitions are whole numbers from 0 on');
  }
  return given;
}

/** What a deserializer has made. @internal */
export function decoded<T>(made: T): T {
  if (made !== null && typeof made === 'object' && typeof (made as { then?: unknown }).then === 'function') {
    // Nobody will look at it.
    Promise.resolve(made).catch(() => undefined);
    throw wrongType('the deserializer returned a promise, and deserializers are synchronous', 'decode in the loop what takes its time');
  }
  return made;
}

/** @internal */
export type DeadLetters = (topic: string, chunk: Chunk, index: number, error: DecodeError) => Promise<void>;
