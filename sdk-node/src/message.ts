/** Records that were read: made when they are asked for, over the one buffer of their batch. */

import { inspect, type InspectOptions } from 'node:util';

/** What came over in one crossing: records of one partition, drawn in the native half's `records`. @internal */
export interface Chunk {
  readonly topic: string;
  readonly partition: number;
  /** The owner of all keys, values and headers. */
  readonly bytes: ArrayBuffer;
  /** {@link COLUMNS} numbers for each record. */
  readonly ranges: Int32Array;
  readonly offsets: BigInt64Array;
  readonly timestampsMs: BigInt64Array;
  /** The offset from which reading goes on behind these. */
  readonly nextOffset: bigint;
}

const COLUMNS = 7;
const KEY_AT = 0;
const VALUE_AT = 2;
const HEADERS_AT = 4;
const HEADER_COUNT = 6;

/**
 * What `Buffer.prototype.subarray` makes. Made by its constructor, as `subarray` does with what the buffer tells it of itself, it takes a third of
 * the time (20 ns and not 60).
 */
const View = (Buffer as unknown as { [Symbol.species]: new (bytes: ArrayBuffer, start: number, length: number) => Buffer })[Symbol.species];

function part(chunk: Chunk, index: number, column: number): Buffer | null {
  const at = index * COLUMNS + column;
  const length = chunk.ranges[at + 1] as number;
  if (length < 0) return null;
  const start = chunk.ranges[at] as number;
  return new View(chunk.bytes, start, length);
}

/** Bytes of key, value and headers. @internal */
export function sizeOf(chunk: Chunk, index: number): number {
  const at = index * COLUMNS;
  const length = (column: number): number => Math.max(0, chunk.ranges[at + column + 1] as number);
  return length(KEY_AT) + length(VALUE_AT) + length(HEADERS_AT);
}

/** @internal */
export const rawKey = (chunk: Chunk, index: number): Buffer | null => part(chunk, index, KEY_AT);
/** @internal */
export const rawValue = (chunk: Chunk, index: number): Buffer | null => part(chunk, index, VALUE_AT);

/** The headers of a record: names and values in order. A name may occur more than once, a value may be null. */
export class Headers implements Iterable<[name: string, value: Buffer | null]> {
  readonly #list: readonly [string, Buffer | null][];

  /** @internal */
  constructor(list: readonly [string, Buffer | null][]) {
    this.#list = list;
  }

  /** How many there are. */
  get size(): number {
    return this.#list.length;
  }

  /** The value of the last header with this name; undefined where there is none. */
  get(name: string): Buffer | null | undefined {
    return this.#list.findLast(([found]) => found === name)?.[1];
  }

  /** The same as text. */
  text(name: string): string | null | undefined {
    const value = this.get(name);
    return value == null ? value : value.toString('utf8');
  }

  /** All values of headers with this name, in order. */
  getAll(name: string): (Buffer | null)[] {
    return this.#list.filter(([found]) => found === name).map(([, value]) => value);
  }

  /** Whether there is a header with this name. */
  has(name: string): boolean {
    return this.#list.some(([found]) => found === name);
  }

  /** Names and values, in order. */
  [Symbol.iterator](): IterableIterator<[string, Buffer | null]> {
    return this.#list.map(([name, value]): [string, Buffer | null] => [name, value]).values();
  }

  /** Names and values as text; of several with one name the last. */
  toJSON(): Record<string, string | null> {
    return Object.fromEntries(this.#list.map(([name, value]) => [name, value && value.toString('utf8')]));
  }

  /** What `console.log` shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    return `Headers ${inspect(this.toJSON(), options)}`;
  }
}

/** Zig-zag varints as in a record of Kafka's RecordBatch v2; they were checked when the table was made. */
function readHeaders(chunk: Chunk, index: number): Headers {
  const list: [string, Buffer | null][] = [];
  const section = part(chunk, index, HEADERS_AT);
  const count = chunk.ranges[index * COLUMNS + HEADER_COUNT] as number;
  let at = 0;
  const length = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = section?.[at++] ?? 0;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
  };
  for (let read = 0; section && read < count; read++) {
    const nameLength = length();
    const name = section.toString('utf8', at, (at += nameLength));
    const valueLength = length();
    list.push([name, valueLength < 0 ? null : section.subarray(at, (at += valueLength))]);
  }
  return new Headers(list);
}

/** Stands for a key or a value that was not decoded: a view is made of it when it is asked for. @internal */
export const AS_SENT = Symbol('as sent');

/**
 * A record that was read.
 *
 * `rawKey`, `rawValue` and the headers' values are views over the memory of the batch in which the record came, and keep all of it (up to
 * some megabytes) alive: take {@link Message.copy} of a record that is kept for long.
 */
export class Message<K = Buffer, V = Buffer> {
  readonly #chunk: Chunk;
  readonly #index: number;
  #headers: Headers | undefined;
  #key: K | null | typeof AS_SENT;
  #value: V | null | typeof AS_SENT;
  readonly #decodeError: Error | undefined;

  /** @internal */
  constructor(
    chunk: Chunk,
    index: number,
    key: K | null | typeof AS_SENT = AS_SENT,
    value: V | null | typeof AS_SENT = AS_SENT,
    decodeError?: Error,
  ) {
    this.#chunk = chunk;
    this.#index = index;
    this.#key = key;
    this.#value = value;
    this.#decodeError = decodeError;
  }

  /** The key; null where it has none. */
  get key(): K | null {
    if (this.#key === AS_SENT) this.#key = this.rawKey as K | null;
    return this.#key;
  }

  /** The value; null for a tombstone. With `onDecodeError: 'raw'` and a {@link Message.decodeError} this is the `Buffer` that was sent. */
  get value(): V | null {
    if (this.#value === AS_SENT) this.#value = this.rawValue as V | null;
    return this.#value;
  }

  /** With `onDecodeError: 'raw'`: why the key or the value could not be decoded. */
  get decodeError(): Error | undefined {
    return this.#decodeError;
  }

  /** The topic. */
  get topic(): string {
    return this.#chunk.topic;
  }

  /** The partition. */
  get partition(): number {
    return this.#chunk.partition;
  }

  /** The offset in the partition. */
  get offset(): bigint {
    return this.#chunk.offsets[this.#index] as bigint;
  }

  /** When it was made, as its producer said. */
  get timestamp(): Date {
    return new Date(this.timestampMs);
  }

  /** The same in milliseconds since 1970-01-01 UTC. */
  get timestampMs(): number {
    return Number(this.#chunk.timestampsMs[this.#index] as bigint);
  }

  /** The headers. */
  get headers(): Headers {
    return (this.#headers ??= readHeaders(this.#chunk, this.#index));
  }

  /** The key as it was sent; a view. */
  get rawKey(): Buffer | null {
    return rawKey(this.#chunk, this.#index);
  }

  /** The value as it was sent; a view. */
  get rawValue(): Buffer | null {
    return rawValue(this.#chunk, this.#index);
  }

  /** The same record with memory of its own: it no longer keeps its batch alive. */
  copy(): Message<K, V> {
    const { topic, partition, nextOffset, bytes, ranges, offsets, timestampsMs } = this.#chunk;
    const at = this.#index * COLUMNS;
    const row = ranges.slice(at, at + COLUMNS);
    const own = new Uint8Array(sizeOf(this.#chunk, this.#index));
    let length = 0;
    for (const column of [KEY_AT, VALUE_AT, HEADERS_AT]) {
      const size = Math.max(0, row[column + 1] as number);
      const start = row[column] as number;
      own.set(new Uint8Array(bytes, start, size), length);
      row[column] = length;
      length += size;
    }
    const one: Chunk = {
      topic,
      partition,
      nextOffset,
      bytes: own.buffer,
      ranges: row,
      offsets: offsets.slice(this.#index, this.#index + 1),
      timestampsMs: timestampsMs.slice(this.#index, this.#index + 1),
    };
    // What was decoded is the user's own; bytes that were not are a view, which has to move.
    const moved = <T>(decoded: T): T | typeof AS_SENT =>
      decoded instanceof Uint8Array && decoded.buffer === bytes ? AS_SENT : decoded;
    return new Message(one, 0, moved(this.#key), moved(this.#value), this.#decodeError);
  }

  /** For `JSON.stringify`: the offset as text, bytes as UTF-8 text. */
  toJSON(): Record<string, unknown> {
    const shown = (value: unknown): unknown => (value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : value);
    return {
      topic: this.topic,
      partition: this.partition,
      offset: this.offset.toString(),
      timestamp: this.timestamp,
      key: shown(this.key),
      value: shown(this.value),
      headers: this.headers,
    };
  }

  /** What `console.log` shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { topic, partition, offset, timestamp, key, value, headers } = this;
    return `Message ${inspect({ topic, partition, offset, timestamp, key, value, headers }, options)}`;
  }
}

/** Records that lie behind each other in a chunk; messages are made of them when they are asked for. @internal */
export interface Rows {
  readonly chunk: Chunk;
  /** The first of them. */
  readonly start: number;
  /** One past the last. */
  readonly end: number;
}

/** A part of a batch: rows, or messages where there are deserializers, whose errors count at the moment of reading. @internal */
export type Span<K, V> = Rows | Message<K, V>[];

const lengthOf = <K, V>(span: Span<K, V>): number => (Array.isArray(span) ? span.length : span.end - span.start);

function messageOf<K, V>(span: Span<K, V>, index: number): Message<K, V> {
  return Array.isArray(span) ? (span[index] as Message<K, V>) : new Message<K, V>(span.chunk, span.start + index);
}

/** Records that are handed out together, those of each partition in order. Iterate over it, as often as you like. */
export class Batch<K = Buffer, V = Buffer> implements Iterable<Message<K, V>> {
  /** How many. */
  readonly length: number;
  readonly #spans: readonly Span<K, V>[];

  /** @internal */
  constructor(spans: readonly Span<K, V>[]) {
    this.#spans = spans;
    this.length = spans.reduce((sum, span) => sum + lengthOf(span), 0);
  }

  /** For each partition in it the offset from which reading goes on behind this batch: what to keep, for a consumer's `offsets`. */
  get nextOffsets(): Map<number, bigint> {
    const next = new Map<number, bigint>();
    for (const span of this.#spans) {
      if (!Array.isArray(span)) next.set(span.chunk.partition, span.chunk.offsets[span.end] ?? span.chunk.nextOffset);
      else for (const { partition, offset } of span) next.set(partition, offset + 1n);
    }
    return next;
  }

  /** The record at this place; negative numbers count from the end. */
  at(index: number): Message<K, V> | undefined {
    let wanted = Math.trunc(index) + (index < 0 ? this.length : 0);
    if (!(wanted >= 0 && wanted < this.length)) return undefined;
    for (const span of this.#spans) {
      if (wanted < lengthOf(span)) return messageOf(span, wanted);
      wanted -= lengthOf(span);
    }
    return undefined;
  }

  /** All of them in an array. */
  toArray(): Message<K, V>[] {
    return [...this];
  }

  /** The records, in order. */
  [Symbol.iterator](): IterableIterator<Message<K, V>> {
    return new Records(this.#spans);
  }

  /** For `JSON.stringify`. */
  toJSON(): Message<K, V>[] {
    return this.toArray();
  }

  /** What `console.log` shows. */
  [inspect.custom](depth: number, options: InspectOptions): string {
    if (depth < 0) return `Batch(${this.length})`;
    const shown = Array.from({ length: Math.min(this.length, RECORDS_SHOWN) }, (_, index) => this.at(index));
    const more = this.length > shown.length ? ` and ${this.length - shown.length} more` : '';
    return `Batch(${this.length}) ${inspect(shown, options)}${more}`;
  }
}

const RECORDS_SHOWN = 3;

/** Not a generator, which takes twice as long for each record. */
class Records<K, V> implements IterableIterator<Message<K, V>> {
  readonly #spans: readonly Span<K, V>[];
  #span = 0;
  #next = 0;

  constructor(spans: readonly Span<K, V>[]) {
    this.#spans = spans;
  }

  next(): IteratorResult<Message<K, V>> {
    for (;;) {
      const span = this.#spans[this.#span];
      if (span === undefined) return { done: true, value: undefined };
      if (this.#next < lengthOf(span)) return { done: false, value: messageOf(span, this.#next++) };
      this.#span++;
      this.#next = 0;
    }
  }

  [Symbol.iterator](): IterableIterator<Message<K, V>> {
    return this;
  }
}
