/**
 * What can go wrong: one tree with {@link MillpondError} at its root.
 *
 * The class says what sort of failure it is, `code` which one exactly. Codes never change their meaning and are the same in all of Millpond's
 * clients and in its command line.
 */

import type { Message } from './message.js';

/** What an error carries beside its message. */
export interface ErrorDetails {
  /** A name that never changes its meaning, such as `topic_not_found`. */
  code: string;
  /** Whether the same call may succeed later without anyone changing anything. */
  retryable?: boolean | undefined;
  /** Whether what was asked for may have been done in spite of the error. */
  maybeDone?: boolean | undefined;
  /** What a person can do about it. */
  hint?: string | undefined;
  /** What led to it. */
  cause?: unknown;
}

/** The root of all errors of this package. */
export class MillpondError extends Error {
  /** A name that never changes its meaning, such as `topic_not_found`. */
  readonly code: string;
  /** Whether the same call may succeed later without anyone changing anything. */
  readonly retryable: boolean;
  /** Whether what was asked for may have been done in spite of the error: doing it again can do it twice. */
  readonly maybeDone: boolean;
  /** What a person can do about it; not there where nothing is known. */
  declare readonly hint?: string | undefined;

  constructor(message: string, details: ErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code;
    this.retryable = details.retryable ?? false;
    this.maybeDone = details.maybeDone ?? false;
    // Where there is none, nobody has to see `hint: undefined`.
    if (details.hint !== undefined) this.hint = details.hint;
  }

  /** For `JSON.stringify`, and for logs that are JSON. */
  toJSON(): Record<string, unknown> {
    const { name, message, code, retryable, maybeDone, hint } = this;
    return { name, message, code, retryable, maybeDone, hint };
  }
}

/** It took too long. */
export class TimeoutError extends MillpondError {}
/** No connection came about, or it was lost. */
export class ConnectionError extends MillpondError {}
/** What answers is not the broker that was meant: another certificate, another fingerprint. */
export class DeniedError extends MillpondError {}
/** There is no such topic, module, view or attachment. */
export class NotFoundError extends MillpondError {}
/** There is one already. */
export class AlreadyExistsError extends MillpondError {}
/** An argument, a setting or a request that cannot be. */
export class InvalidError extends MillpondError {}
/** A value of a type that cannot be. */
export class WrongTypeError extends InvalidError {}
/** A record, a batch or a module has too many bytes. */
export class TooLargeError extends MillpondError {}
/** It is in use, and cannot be removed. */
export class InUseError extends MillpondError {}
/** The client, the producer or the consumer was closed. */
export class ClosedError extends MillpondError {}
/** A transform failed in the broker. */
export class TransformError extends MillpondError {}
/** The broker's disk is full, or has failed. */
export class StorageError extends MillpondError {}
/** The broker takes nothing at this moment. */
export class UnavailableError extends MillpondError {}
/** The broker and this producer disagree about which batches were sent. */
export class SequenceError extends MillpondError {}
/** Something that should not be: a fault of the broker or of this client. */
export class InternalError extends MillpondError {}

/** Offsets that can be asked for. */
export interface OffsetRange {
  /** The first. */
  readonly first: bigint;
  /** One past the last. */
  readonly end: bigint;
}

/** An offset that the partition does not reach to: retention has passed it, or it lies behind the end. */
export class OffsetOutOfRangeError extends MillpondError {
  /** The offsets that can be asked for, the first and one past the last, where the broker said so. */
  readonly range: OffsetRange | undefined;

  constructor(message: string, details: ErrorDetails & { range?: readonly [bigint, bigint] | undefined }) {
    super(message, details);
    this.range = details.range && { first: details.range[0], end: details.range[1] };
  }
}

/** Stored records cannot be read. Reading goes on behind them. */
export class CorruptError extends MillpondError {
  /** The partition, where it is known. */
  readonly partition: number | undefined;
  /** The offset behind the damage, from which reading can go on, where it is known. */
  readonly nextOffset: bigint | undefined;

  constructor(message: string, details: ErrorDetails & { partition?: number | undefined; nextOffset?: bigint | undefined }) {
    super(message, details);
    this.partition = details.partition;
    this.nextOffset = details.nextOffset;
  }
}

/** A serializer failed on a record that was to be sent; `cause` is what it threw. Nothing of the record was sent. */
export class EncodeError extends MillpondError {}

/** A deserializer failed on a record; `cause` is what it threw. The next read goes on behind the record. */
export class DecodeError extends MillpondError {
  /** The topic. */
  readonly topic: string;
  /** The partition. */
  readonly partition: number;
  /** The record's offset. */
  readonly offset: bigint;
  /** Which part of the record it was. */
  readonly part: 'key' | 'value';
  /** The record, with bytes as they were sent. */
  readonly record: Message;

  constructor(
    message: string,
    details: ErrorDetails & {
      topic: string;
      partition: number;
      offset: bigint;
      part: 'key' | 'value';
      record: Message;
    },
  ) {
    super(message, details);
    this.topic = details.topic;
    this.partition = details.partition;
    this.offset = details.offset;
    this.part = details.part;
    this.record = details.record;
  }
}

/** An `AbortSignal` ended the wait; `cause` is the signal's reason. Its `name` is `AbortError`, as everywhere in Node.js. */
export class AbortError extends MillpondError {
  constructor(reason?: unknown, maybeDone = false) {
    super('the operation was aborted', { code: 'ABORT_ERR', maybeDone, cause: reason });
    this.name = 'AbortError';
  }
}

type Constructor = new (message: string, details: ErrorDetails) => MillpondError;

const CLASSES: Readonly<Record<string, Constructor>> = {
  timeout: TimeoutError,
  connection: ConnectionError,
  denied: DeniedError,
  not_found: NotFoundError,
  already_exists: AlreadyExistsError,
  invalid: InvalidError,
  too_large: TooLargeError,
  in_use: InUseError,
  closed: ClosedError,
  guest: TransformError,
  storage: StorageError,
  unavailable: UnavailableError,
  sequence: SequenceError,
  forked: ClosedError,
};

/** A failure as the native half tells it. @internal */
interface Failure {
  code: string;
  kind: string;
  message: string;
  hint?: string | null;
  retryable: boolean;
  maybe_done: boolean;
  range?: readonly [string, string] | null;
  next_offset?: string | null;
  partition?: number | null;
  cause?: Failure | null;
}

/** The code of a call that was cancelled by this package itself. @internal */
export const CANCELLED = 'cancelled';

/** Makes an error of what the native half threw, or of the text of a failure. @internal */
export function toError(thrown: unknown): Error {
  if (thrown instanceof MillpondError) return thrown;
  const text = typeof thrown === 'string' ? thrown : thrown instanceof Error ? thrown.message : String(thrown);
  let failure: Failure;
  try {
    failure = JSON.parse(text) as Failure;
  } catch {
    return thrown instanceof Error ? thrown : new InternalError(text, { code: 'internal' });
  }
  return fromFailure(failure);
}

function fromFailure(failure: Failure): MillpondError {
  const isSetting = failure.code === 'invalid_setting';
  const words = (said: string): string => (isSetting ? said.replace(SNAKE_CASE, camelCase) : said);
  const details: ErrorDetails = {
    code: failure.code,
    retryable: failure.retryable,
    maybeDone: failure.maybe_done,
    hint: failure.hint == null ? undefined : words(failure.hint),
    cause: failure.cause == null ? undefined : fromFailure(failure.cause),
  };
  const message = words(failure.message);
  if (failure.kind === 'out_of_range') {
    const range = failure.range == null ? undefined : ([BigInt(failure.range[0]), BigInt(failure.range[1])] as const);
    return new OffsetOutOfRangeError(message, { ...details, range });
  }
  if (failure.kind === 'corrupt') {
    const nextOffset = failure.next_offset == null ? undefined : BigInt(failure.next_offset);
    return new CorruptError(message, { ...details, nextOffset, partition: failure.partition ?? undefined });
  }
  return new (CLASSES[failure.kind] ?? InternalError)(message, details);
}

/** Names of settings, which are written in another way here than in the core. */
const SNAKE_CASE = /\b[a-z]+(?:_[a-z0-9]+)+\b/g;

/** `linger_ms` as `lingerMs`. @internal */
export function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** The same error, with the stack of who waited for it: it was made where answers come in, and that line is nobody's. @internal */
export function here<T>(error: T): T {
  if (error instanceof MillpondError) Error.captureStackTrace(error, here);
  return error;
}

/** The place of a call, for the stack of an error that comes later. @internal */
export interface CallSite {
  stack?: string;
}

/** The same error, with the stack of the call that led to it. @internal */
export function calledAt<T>(error: T, site: CallSite | undefined): T {
  const frames = site?.stack?.indexOf('\n    at ') ?? -1;
  if (error instanceof MillpondError && frames >= 0) error.stack = `${error.name}: ${error.message}${site?.stack?.slice(frames)}`;
  return error;
}

/** An argument with a value that it cannot have. @internal */
export function invalid(message: string, hint?: string): InvalidError {
  return new InvalidError(message, { code: 'invalid_setting', hint });
}

/** An argument of a type that it cannot have. @internal */
export function wrongType(message: string, hint?: string): WrongTypeError {
  return new WrongTypeError(message, { code: 'wrong_type', hint });
}

/** @internal */
export function closed(what: string): ClosedError {
  return new ClosedError(`the ${what} is closed`, { code: 'closed' });
}
