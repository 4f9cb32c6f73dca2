/** Answers to records, and who waits for them. */

import { inspect, type InspectOptions } from 'node:util';
import { calledAt, type CallSite } from './errors.js';
import type { Native } from './native.js';

/** Where a record was stored. */
export interface RecordPlace {
  /** The partition; -1 for a record that a transform left out before it had one. */
  readonly partition: number;
  /** The offset; -1n for a record that a transform left out. */
  readonly offset: bigint;
  /**
   * What became of it. `stored`: it is there. `dropped`: a transform left it out. `stored-unless-dropped`: a transform left out some of its batch,
   * and the broker does not say which; if it is stored, then at this offset. `expanded`: a transform made more records of its batch, which lie at this
   * offset and behind it.
   */
  readonly fate: Fate;
  /** When it was stored, by the broker's clock; undefined where an answer was lost and the broker does not know it any more. */
  readonly appendTime: Date | undefined;
}

/** See {@link RecordPlace.fate}. */
export type Fate = 'stored' | 'dropped' | 'stored-unless-dropped' | 'expanded';

const FATES: readonly Fate[] = ['stored', 'dropped', 'stored-unless-dropped', 'expanded'];

/** Records that follow each other and went the same way: a row of the answers, for these records of a `sendMany`. @internal */
interface Run {
  readonly first: number;
  readonly answers: Native.Answers;
  readonly row: number;
}

/** The places of the records of a `sendMany`, in their order; made when they are asked for. */
export class Places implements Iterable<RecordPlace> {
  /** How many records that were. */
  readonly length: number;
  /** In the order of their records; they have no gaps. */
  readonly #runs: readonly Run[];

  /** @internal */
  constructor(runs: readonly Run[], length: number) {
    this.#runs = runs;
    this.length = length;
  }

  /** Where the record with this number went; negative numbers count from the end. */
  at(index: number): RecordPlace | undefined {
    const wanted = Math.trunc(index) + (index < 0 ? this.length : 0);
    if (!(wanted >= 0 && wanted < this.length)) return undefined;
    let [low, high] = [0, this.#runs.length];
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((this.#runs[middle] as Run).first <= wanted) low = middle;
      else high = middle;
    }
    const { first, answers, row } = this.#runs[low] as Run;
    return placeOf(answers, row, wanted - first);
  }

  /** The places, in order. */
  *[Symbol.iterator](): IterableIterator<RecordPlace> {
    for (const { answers, row } of this.#runs) {
      const count = answers.counts[row] as number;
      for (let behind = 0; behind < count; behind++) yield placeOf(answers, row, behind);
    }
  }

  /** For `JSON.stringify`: offsets as text. */
  toJSON(): unknown[] {
    return Array.from(this, (place) => ({ ...place, offset: place.offset.toString() }));
  }

  /** What `console.log` shows. */
  [inspect.custom](depth: number, options: InspectOptions): string {
    const shown = Array.from({ length: Math.min(this.length, PLACES_SHOWN) }, (_, index) => this.at(index));
    const more = this.length > shown.length ? ` and ${this.length - shown.length} more` : '';
    return depth < 0 ? `Places(${this.length})` : `Places(${this.length}) ${inspect(shown, options)}${more}`;
  }
}

const PLACES_SHOWN = 3;

/** Who waits for the answers of one hand-over. @internal */
export interface Sending {
  /** Records that are not answered. */
  left: number;
  /** What they take, in bytes. */
  bytes: number;
  /** The answer to `count` records from `index` on, which is this row. */
  settle(index: number, count: number, answers: Native.Answers, row: number): void;
  /** The same for records that failed; whether somebody is told of each. */
  fail(index: number, count: number, error: Error): boolean;
  /** Fails what is left. */
  abandon(error: Error): void;
}

/** The promise of a `send`, which knows whether anybody looks at it. @internal */
export class Sent extends Promise<RecordPlace> {
  isLookedAt = false;

  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  override then<A = RecordPlace, B = never>(
    fulfilled?: ((place: RecordPlace) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.isLookedAt = true;
    return super.then(fulfilled, rejected);
  }
}

/** Who waits for the answer to one record. @internal */
export interface Waiter {
  resolve(place: RecordPlace): void;
  reject(error: Error): void;
  promise: Sent;
  /** To be called with the answer, where a signal may end the wait. */
  forget?: (() => void) | undefined;
}

/** Rejects it; says whether somebody looks at it, who hears of it so. A promise that nobody looks at must not end the process. @internal */
export function fail(waiter: Waiter, error: Error): boolean {
  const { isLookedAt } = waiter.promise;
  if (!isLookedAt) Promise.prototype.then.call(waiter.promise, undefined, ignore);
  waiter.forget?.();
  waiter.reject(error);
  return isLookedAt;
}

let [resolveMade, rejectMade]: [Waiter['resolve'], Waiter['reject']] = [() => undefined, () => undefined];

/** One for all promises: a function for each would be made a million times a second. */
function take(resolve: (place: RecordPlace) => void, reject: (error: Error) => void): void {
  resolveMade = resolve;
  rejectMade = reject;
}

/** A promise that nobody looks at yet. @internal */
export function waiter(): Waiter {
  const promise = new Sent(take);
  return { promise, resolve: resolveMade, reject: rejectMade };
}

const ignore = (): void => undefined;

/** Records that were sent one by one: each has a promise of its own. @internal */
export class Each implements Sending {
  left: number;
  bytes = 0;
  readonly #waiters: (Waiter | undefined)[];

  readonly #site: CallSite | undefined;

  constructor(waiters: Waiter[], site?: CallSite) {
    this.#waiters = waiters;
    this.#site = site;
    this.left = waiters.length;
  }

  settle(index: number, count: number, answers: Native.Answers, row: number): void {
    for (let behind = 0; behind < count; behind++) {
      const waiter = this.#waiters[index + behind];
      waiter?.forget?.();
      waiter?.resolve(placeOf(answers, row, behind));
      this.#waiters[index + behind] = undefined;
    }
  }

  fail(index: number, count: number, error: Error): boolean {
    let isTold = true;
    for (let behind = 0; behind < count; behind++) isTold = this.#failOne(index + behind, error) && isTold;
    return isTold;
  }

  #failOne(index: number, error: Error): boolean {
    const waiter = this.#waiters[index];
    this.#waiters[index] = undefined;
    return waiter !== undefined && fail(waiter, calledAt(error, this.#site));
  }

  abandon(error: Error): void {
    this.fail(0, this.#waiters.length, error);
  }
}

/** Records of one `sendMany`, which go over in several parts. @internal */
export class Many {
  /** Records that are packed and not handed over. */
  waiting = 0;
  readonly #runs: Run[] = [];
  #left = 0;
  #given = 0;
  #failure: Error | undefined;
  #finish: (() => void) | undefined;

  /** Whether any record was taken. */
  get isBegun(): boolean {
    return this.waiting > 0 || this.#given > 0;
  }

  part(): Sending {
    const first = this.#given;
    this.#given += this.waiting;
    this.#left += this.waiting;
    const sending: Sending = {
      left: this.waiting,
      bytes: 0,
      settle: (index, count, answers, row) => {
        this.#runs.push({ first: first + index, answers, row });
        this.#ended(count);
      },
      fail: (_, count, error) => {
        this.#failure ??= error;
        this.#ended(count);
        return true;
      },
      abandon: (error) => {
        this.#failure ??= error;
        this.#ended(sending.left);
      },
    };
    this.waiting = 0;
    return sending;
  }

  async done(): Promise<Places> {
    if (this.#left > 0) await new Promise<void>((resolve) => (this.#finish = resolve));
    if (this.#failure) throw this.#failure;
    // Each partition answers in its own time.
    return new Places(this.#runs.sort((a, b) => a.first - b.first), this.#given);
  }

  #ended(records: number): void {
    this.#left -= records;
    if (this.#left === 0) this.#finish?.();
  }
}

/** The place of the record that lies so many records behind the first one of a row. */
function placeOf(answers: Native.Answers, row: number, behind: number): RecordPlace {
  const appended = answers.appendTimesMs[row] as number;
  const fate = FATES[answers.fates[row] as number] ?? 'stored';
  const offset = answers.offsets[row] as bigint;
  return {
    partition: answers.partitions[row] as number,
    offset: behind === 0 || fate === 'dropped' || fate === 'expanded' ? offset : offset + BigInt(behind),
    fate,
    appendTime: appended >= 0 ? new Date(appended) : undefined,
  };
}
