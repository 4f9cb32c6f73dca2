/** Waiting that an `AbortSignal` can end. @internal */

import { AbortError, CANCELLED, MillpondError, invalid, toError, wrongType } from './errors.js';
import { native, type Native } from './native.js';
import { kindOf } from './serializers.js';

/** What can be given to everything that waits. */
export interface Waiting {
  /** Ends the wait, with an {@link AbortError}. */
  signal?: AbortSignal | undefined;
}

/** Throws if it is aborted already. @internal */
export function check(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (!(signal instanceof AbortSignal)) {
    throw wrongType(`\`signal\` is an AbortSignal, and this is ${kindOf(signal)}`, 'give `controller.signal` of an AbortController');
  }
  if (signal.aborted) throw new AbortError(signal.reason);
}

/** Starts a native call that the signal cancels, and makes errors of its failures. @internal */
export async function call<T>(
  signal: AbortSignal | undefined,
  start: (cancel: Native.Cancel) => Promise<T>,
  maybeDone = false,
): Promise<T> {
  check(signal);
  const cancel = new native.Cancel();
  const forget = signal && onAbort(signal, () => cancel.cancel());
  try {
    return await start(cancel);
  } catch (thrown) {
    const error = toError(thrown);
    if (signal?.aborted && error instanceof MillpondError && error.code === CANCELLED) {
      throw new AbortError(signal.reason, maybeDone);
    }
    throw error;
  } finally {
    forget?.();
  }
}

const listening = new WeakMap<AbortSignal, { stops: Set<() => void>; listener: () => void }>();

/**
 * Calls `stop` when the signal is aborted, unless what this returns was called before. However many wait, a signal has one listener: a signal
 * of a request may end hundreds of waits. @internal
 */
export function onAbort(signal: AbortSignal, stop: () => void): () => void {
  let waits = listening.get(signal);
  if (!waits) {
    const stops = new Set<() => void>();
    const listener = (): void => {
      listening.delete(signal);
      for (const each of stops) each();
    };
    waits = { stops, listener };
    listening.set(signal, waits);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { stops, listener } = waits;
  stops.add(stop);
  return () => {
    if (!stops.delete(stop) || stops.size > 0) return;
    // A signal with a listener is never collected.
    signal.removeEventListener('abort', listener);
    if (listening.get(signal)?.stops === stops) listening.delete(signal);
  };
}

/** The longest time that a timer of Node.js can have, in milliseconds: nearly 25 days. @internal */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** @internal */
export function checkMs(ms: number, name: string): number {
  if (typeof ms !== 'number' || !(ms >= 0)) throw invalid(`\`${name}\` cannot be ${String(ms)}: it is a number of milliseconds from 0 on`);
  return ms;
}

/** A signal that is aborted after so many milliseconds. @internal */
export function after(ms: number): AbortSignal {
  return AbortSignal.timeout(Math.min(Math.ceil(ms), TIMER_MS_MAX));
}

/** Waits for a promise that goes on whether anybody waits or not; `maybeDone` says whether it is about something that may be done then. @internal */
export function waitFor<T>(promise: Promise<T>, signal: AbortSignal | undefined, maybeDone = false): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new AbortError(signal.reason, maybeDone));
      return;
    }
    const forget = onAbort(signal, () => reject(new AbortError(signal.reason, maybeDone)));
    promise.then(resolve, reject).finally(forget);
  });
}
