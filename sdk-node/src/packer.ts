/**
 * Records on their way to the native half: one arena of bytes and one table.
 *
 * ```text
 *  bytes   for each record: key, value, then for each header: name length (u32), value length (i32, -1 is null), name, value; little-endian
 *  table   for each record COLUMNS numbers (f64):
 *          key length (-1 is none), value length (-1 is none), header count, bytes of the headers, partition (-1 is none), timestamp in ms (NaN is now)
 * ```
 *
 * @internal
 */

import { wrongType } from './errors.js';
import type { HeadersInit } from './producer.js';
import { kindOf, type Bytes } from './serializers.js';

const COLUMNS = 6;
/** From here on what is packed goes over at once, in bytes: so few that they are still in the cache of the processor when they are encoded. */
const FULL_BYTES = 256 << 10;
/** Of the table, of the answer and of who waits for it, about. */
const RECORD_BYTES = 100;
/** Memory for more than this is given back once it was handed over, in bytes. */
const ARENA_BYTES_KEPT = 4 << 20;
const FIRST_BYTES = 64 << 10;
const FIRST_RECORDS = 256;
const HEADER_FRONT_BYTES = 8;
const PARTITION_MAX = 2 ** 31 - 1;

/** @internal */
export class Packer {
  #arena = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #table = new Float64Array(FIRST_RECORDS * COLUMNS);
  #at = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** What it takes in memory until it is answered; a record without a byte takes some as well. */
  get bytes(): number {
    return this.#at + this.#count * RECORD_BYTES;
  }

  get isFull(): boolean {
    return this.bytes >= FULL_BYTES;
  }

  /** Adds a record whole, or throws and adds nothing of it. What it is given is no user's code any more, which might send something itself. */
  add(key: Bytes | null, value: Bytes | null, timestamp: number, partition: number, pairs: Pairs | undefined): void {
    const start = this.#at;
    try {
      const keyLength = key === null ? -1 : this.#write(key);
      const valueLength = value === null ? -1 : this.#write(value);
      const headersAt = this.#at;
      const headers = pairs === undefined ? 0 : this.#writeHeaders(pairs);
      const at = this.#count * COLUMNS;
      if (at === this.#table.length) {
        const larger = new Float64Array(at * 2);
        larger.set(this.#table);
        this.#table = larger;
      }
      const table = this.#table;
      table[at] = keyLength;
      table[at + 1] = valueLength;
      table[at + 2] = headers;
      table[at + 3] = this.#at - headersAt;
      table[at + 4] = partition;
      table[at + 5] = timestamp;
      this.#count++;
    } catch (error) {
      this.#at = start;
      throw error;
    }
  }

  /** What was packed. It may be looked at until the next record is added. */
  take(): { bytes: Uint8Array; table: Float64Array } {
    const taken = { bytes: this.#arena.subarray(0, this.#at), table: this.#table.subarray(0, this.#count * COLUMNS) };
    this.#at = 0;
    this.#count = 0;
    // One record of many megabytes must not keep its memory here.
    if (this.#arena.length > ARENA_BYTES_KEPT) this.#arena = Buffer.allocUnsafeSlow(FIRST_BYTES);
    return taken;
  }

  #reserve(bytes: number): void {
    const needed = this.#at + bytes;
    if (needed <= this.#arena.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#arena.length * 2));
    this.#arena.copy(larger, 0, 0, this.#at);
    this.#arena = larger;
  }

  #write(part: Bytes): number {
    if (typeof part === 'string') {
      // A character takes three bytes of UTF-8 at most; those of four are two of these.
      this.#reserve(part.length * 3);
      const length = this.#arena.write(part, this.#at);
      this.#at += length;
      return length;
    }
    this.#reserve(part.length);
    this.#arena.set(part, this.#at);
    this.#at += part.length;
    return part.length;
  }

  #writeHeaders(pairs: Pairs): number {
    let count = 0;
    for (const [name, value] of pairs) {
      if (typeof name !== 'string') throw wrongType(`the name of a header is a string, and this is ${kindOf(name)}`);
      if (value !== null && typeof value !== 'string' && !(value instanceof Uint8Array)) {
        throw wrongType(`the value of the header \`${name}\` is a string, bytes or null, and this is ${kindOf(value)}`);
      }
      this.#reserve(HEADER_FRONT_BYTES);
      const front = this.#at;
      this.#at += HEADER_FRONT_BYTES;
      const nameLength = this.#write(name);
      const valueLength = value === null ? -1 : this.#write(value);
      this.#arena.writeUInt32LE(nameLength, front);
      this.#arena.writeInt32LE(valueLength, front + 4);
      count++;
    }
    return count;
  }
}

/** Names and values of headers. @internal */
export type Pairs = readonly (readonly [name: string, value: Bytes | null])[];

/** @internal */
export function pairsOf(headers: HeadersInit | undefined): Pairs | undefined {
  if (headers === undefined) return undefined;
  if (headers === null || typeof headers !== 'object') throw wrongType(`headers are an object or pairs, and this is ${kindOf(headers)}`);
  return Symbol.iterator in headers ? [...headers] : Object.entries(headers);
}

/** @internal */
export function timestampOf(given: Date | number | undefined): number {
  if (given === undefined) return NaN;
  const ms = given instanceof Date ? given.getTime() : given;
  if (!Number.isSafeInteger(ms)) {
    throw wrongType(`a timestamp is a Date or whole milliseconds since 1970-01-01 UTC, and this is ${String(given)}`);
  }
  return ms;
}

/** @internal */
export function partitionOf(given: number | undefined): number {
  if (given === undefined) return -1;
  if (!Number.isInteger(given) || given < 0 || given > PARTITION_MAX) throw wrongType(`a partition is a whole number from 0 on, and this is ${String(given)}`);
  return given;
}
