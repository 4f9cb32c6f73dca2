/** What is open, for whoever wonders why a process goes on, or what it forgot to close. */

/** Something that was made and not closed. */
export interface OpenHandle {
  /** What it is. */
  readonly kind: 'client' | 'producer' | 'consumer';
  /** The broker's address, or the topic. */
  readonly name: string;
  /** What it waits for at this moment, such as `2 records are not answered`; this keeps the process alive. Nothing waits where it is undefined. */
  readonly waitsFor: string | undefined;
}

/** @internal */
export interface Handle {
  describe(): OpenHandle;
}

/** Things that can be gone through for as long as somebody else holds them: what nobody can close any more is collected, and lets go of the broker. @internal */
export class Weakly<T extends object> implements Iterable<T> {
  readonly #references = new Set<WeakRef<T>>();
  readonly #own = new WeakMap<T, WeakRef<T>>();
  readonly #collected = new FinalizationRegistry<WeakRef<T>>((reference) => this.#references.delete(reference));

  add(thing: T): void {
    const reference = new WeakRef(thing);
    this.#references.add(reference);
    this.#own.set(thing, reference);
    this.#collected.register(thing, reference);
  }

  delete(thing: T): void {
    const reference = this.#own.get(thing);
    if (reference) this.#references.delete(reference);
  }

  get isEmpty(): boolean {
    return this[Symbol.iterator]().next().done === true;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (const reference of this.#references) {
      const thing = reference.deref();
      if (thing) yield thing;
    }
  }
}

const open = new Weakly<Handle>();
let isWatching = false;

/** @internal */
export function opened(handle: Handle): void {
  open.add(handle);
  if (!isWatching) {
    isWatching = true;
    process.once('beforeExit', warn);
  }
}

/** @internal */
export function closed(handle: Handle): void {
  open.delete(handle);
  if (isWatching && open.isEmpty) {
    isWatching = false;
    process.removeListener('beforeExit', warn);
  }
}

/**
 * What is open in this thread. A process goes on for as long as something waits: a record for its answer, a loop for the next record, a request.
 * A client that is merely open keeps no process alive; when a process ends with one open, a warning says so.
 */
export function openHandles(): OpenHandle[] {
  return Array.from(open, (handle) => handle.describe());
}

function warn(): void {
  const list = openHandles().map((handle) => `${handle.kind} ${handle.name}`);
  if (list.length > 0) {
    process.emitWarning(`the process ends and these were not closed: ${list.join(', ')}`, {
      type: 'MillpondWarning',
      code: 'MILLPOND_OPEN',
      detail: 'close a client with `await client.close()`, or make it with `await using`',
    });
  }
}
