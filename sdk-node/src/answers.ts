/** Answers to records, and who waits for them. */

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

/** The places of the records of a `sendMany`, in their order; made when they are asked for. */
export class Places implements Iterable<RecordPlace> {
  readonly #answers: readonly Native.Answers[];
  readonly #rows: readonly number[];

  /** @internal */
  constructor(answers: readonly Native.Answers[], rows: readonly number[]) {
    this.#answers = answers;
    this.#rows = rows;
  }

  /** How many records that were. */
  get length(): number {
    return this.#rows.length;
  }

  /** Where the record with this number went; negative numbers count from the end. */
  at(index: number): RecordPlace | undefined {
    const answers = this.#answers.at(index);
    return answers && placeOf(answers, this.#rows.at(index) as number);
  }

  /** The places, in order. */
  *[Symbol.iterator](): IterableIterator<RecordPlace> {
    for (let index = 0; index < this.#rows.length; index++) yield this.at(index) as RecordPlace;
  }
}

/** Who waits for the answers of one hand-over. @internal */
export interface Sending {
  /** Records that are not answered. */
  left: number;
  /** What they take, in bytes. */
  bytes: number;
  settle(index: number, answers: Native.Answers, row: number): void;
  /** Whether somebody is told. */
  fail(index: number, error: Error): boolean;
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

/** @internal */
export interface Waiter {
  resolve(place: RecordPlace): void;
  reject(error: Error): void;
  promise: Sent | undefined;
}

const ignore = (): void => undefined;

/** Records that were sent one by one: each has a promise of its own. @internal */
export class Each implements Sending {
  left: number;
  bytes = 0;
  readonly #waiters: (Waiter | undefined)[];

  constructor(waiters: Waiter[]) {
    this.#waiters = waiters;
    this.left = waiters.length;
  }

  settle(index: number, answers: Native.Answers, row: number): void {
    this.#waiters[index]?.resolve(placeOf(answers, row));
    this.#waiters[index] = undefined;
  }

  fail(index: number, error: Error): boolean {
    const waiter = this.#waiters[index];
    this.#waiters[index] = undefined;
    const isLookedAt = waiter?.promise?.isLookedAt ?? false;
    // `flush` and `close` tell of it: a promise that nobody looks at must not end the process.
    if (waiter?.promise && !isLookedAt) Promise.prototype.then.call(waiter.promise, undefined, ignore);
    waiter?.reject(error);
    return isLookedAt;
  }

  abandon(error: Error): void {
    for (let index = 0; index < this.#waiters.length; index++) this.fail(index, error);
  }
}

/** Records of one `sendMany`, which go over in several parts. @internal */
export class Many {
  /** Records that are packed and not handed over. */
  waiting = 0;
  readonly #answers: Native.Answers[] = [];
  readonly #rows: number[] = [];
  #left = 0;
  #given = 0;
  #failure: Error | undefined;
  #finish: (() => void) | undefined;

  part(): Sending {
    const first = this.#given;
    this.#given += this.waiting;
    this.#left += this.waiting;
    const sending: Sending = {
      left: this.waiting,
      bytes: 0,
      settle: (index, answers, row) => {
        this.#answers[first + index] = answers;
        this.#rows[first + index] = row;
        this.#ended(1);
      },
      fail: (_, error) => {
        this.#failure ??= error;
        this.#ended(1);
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
    return new Places(this.#answers, this.#rows);
  }

  #ended(records: number): void {
    this.#left -= records;
    if (this.#left === 0) this.#finish?.();
  }
}

function placeOf(answers: Native.Answers, row: number): RecordPlace {
  const appended = answers.appendTimesMs[row] as number;
  return {
    partition: answers.partitions[row] as number,
    offset: answers.offsets[row] as bigint,
    fate: FATES[answers.fates[row] as number] ?? 'stored',
    appendTime: appended >= 0 ? new Date(appended) : undefined,
  };
}
