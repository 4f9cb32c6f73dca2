/** What a consumer has read and not handed out. @internal */

import { sizeOf, type Chunk, type Message } from './message.js';

/** Records of a chunk that were not handed out. @internal */
export interface Rest {
  readonly chunk: Chunk;
  next: number;
  /** One that was decoded already, and comes behind dead letters. */
  ahead?: { readonly index: number; readonly message: Message<unknown, unknown> } | undefined;
  /** Those whose dead letters are stored, and which may come again because one before them is not. */
  stored?: Set<number>;
}

/** More than this is not waited for, in bytes of chunks. */
const BYTES_MAX = 64 << 20;

/** In the order in which it came; what belongs to partitions that are paused lies aside. @internal */
export class Shelf {
  #rests: Rest[] = [];
  #parked: Rest[] = [];
  readonly #paused = new Set<number>();
  #pending: { error: unknown } | undefined;

  push(chunk: Chunk): void {
    (this.#paused.has(chunk.partition) ? this.#parked : this.#rests).push({ chunk, next: 0 });
  }

  /** That which records are taken from. */
  get first(): Rest | undefined {
    for (;;) {
      const rest = this.#rests[0];
      if (!rest || rest.next < rest.chunk.offsets.length) return rest;
      this.#rests.shift();
    }
  }

  /** Bytes of the next record. */
  get nextSize(): number | undefined {
    const rest = this.first;
    return rest && sizeOf(rest.chunk, rest.next);
  }

  /** Whether there is nothing to hand out, neither a record nor an error. */
  get isEmpty(): boolean {
    return !this.#pending && this.first === undefined;
  }

  /** Whether something lies aside. */
  get hasParked(): boolean {
    return this.#parked.length > 0;
  }

  /** Whether there are fewer records than so many, and room for more. */
  isShortOf(records: number): boolean {
    if (this.#pending) return false;
    let [count, bytes] = [0, 0];
    for (const { chunk, next } of this.#rests) {
      count += chunk.offsets.length - next;
      bytes += chunk.bytes.byteLength;
    }
    return count < records && bytes < BYTES_MAX;
  }

  /** Went wrong behind records that were handed out already: the next read tells. */
  fail(error: unknown): void {
    this.#pending = { error };
  }

  /** Throws what went wrong, once. */
  check(): void {
    if (!this.#pending) return;
    const { error } = this.#pending;
    this.#pending = undefined;
    throw error;
  }

  /** Records that were taken and are not handed out after all; of those that a seek has left behind nothing is wanted. */
  putBack(rest: Rest, index: number, end: number): void {
    if (rest.next === end && (this.#rests.includes(rest) || this.#parked.includes(rest))) rest.next = index;
  }

  /** The offset of the next record of a partition that is handed out, where it has any here. */
  position(partition: number): bigint | undefined {
    const rest = [...this.#rests, ...this.#parked].find(({ chunk }) => chunk.partition === partition);
    return rest && (rest.chunk.offsets[rest.next] ?? rest.chunk.nextOffset);
  }

  pause(partitions: Iterable<number>): void {
    for (const partition of partitions) this.#paused.add(partition);
    const isPaused = (rest: Rest): boolean => this.#paused.has(rest.chunk.partition);
    this.#parked.push(...this.#rests.filter(isPaused));
    this.#rests = this.#rests.filter((rest) => !isPaused(rest));
  }

  resume(partition: number | undefined): void {
    if (partition === undefined) this.#paused.clear();
    else this.#paused.delete(partition);
    const parked = this.#parked;
    this.#parked = [];
    this.#rests = [...parked, ...this.#rests];
    this.pause([]);
  }

  /** After a seek in a partition, or in all: what was there is not wanted any more. */
  forget(partition?: number): void {
    const stays = (of: number | undefined): boolean => partition !== undefined && of !== partition;
    this.#rests = this.#rests.filter(({ chunk }) => stays(chunk.partition));
    this.#parked = this.#parked.filter(({ chunk }) => stays(chunk.partition));
    const failed = (this.#pending?.error as { partition?: number } | undefined)?.partition;
    if (failed === undefined || !stays(failed)) this.#pending = undefined;
  }
}
