/** What requests about topics, transforms and the broker take and give. */

import type { Place } from './consumer-options.js';
import type { RequestOptions } from './topic-types.js';

export type * from './topic-types.js';

/**
 * Where in a topic's path a module runs: on `produce` before records are stored, as the `partition`er, on `fetch` for those who read a view, or to
 * `derive` other topics.
 */
export type AttachPoint = 'produce' | 'partition' | 'fetch' | 'derive';

/** What a module may use on one topic; where there is none, the broker's setting holds. */
export interface AttachLimits {
  /** Bytes of memory for one instance. */
  memoryBytes?: number | undefined;
  /** Milliseconds of processor time for one batch. */
  timeMs?: number | undefined;
  /** Bytes that it may return for one batch. */
  outputBytes?: number | undefined;
  /** Bytes that it may log each second. */
  logBytesPerSecond?: number | undefined;
}

/** For `on: 'derive'`: where the records go. */
export interface DeriveOptions {
  /** The topics that the module may write to. */
  targets: readonly string[];
  /** Where it begins; at the beginning. */
  start?: Place | undefined;
  /** The offsets at which it begins in these partitions instead. */
  offsets?: Readonly<Record<number, bigint | number>> | undefined;
  /** Bytes of state that it may have for each partition. */
  stateBytes?: number | undefined;
  /** How often a batch is tried again. */
  retries?: number | undefined;
}

/** How to run a module on a topic. */
export interface AttachOptions extends RequestOptions {
  /** Where; on `produce`. */
  on?: AttachPoint | undefined;
  /** With `on: 'fetch'`: the view that it makes, or takes part in. */
  view?: string | undefined;
  /** What the module is given when it starts. */
  params?: Readonly<Record<string, string>> | undefined;
  /** What it may use. */
  limits?: AttachLimits | undefined;
  /** What becomes of records on which it fails; `reject`, and `stop` for a derived topic. */
  onError?: 'reject' | 'skip' | 'stop' | `dead-letter:${string}` | undefined;
  /** With `on: 'derive'`: where the records go. */
  derive?: DeriveOptions | undefined;
}

/** Which attachment to end. */
export interface DetachOptions extends RequestOptions {
  /** Where it runs; on `produce`. */
  on?: AttachPoint | undefined;
  /** With `on: 'fetch'`: the view. */
  view?: string | undefined;
  /** With `on: 'derive'`: what it has made and its targets can't take at this moment is lost, rather than a reason to refuse. */
  force?: boolean | undefined;
}

/** What is to change of how a module runs; what is not named stays as it is. */
export interface AlterOptions extends RequestOptions, Pick<AttachOptions, 'on' | 'view' | 'params' | 'limits' | 'onError'> {
  /** It runs the current version from here on, whichever that is. */
  followCurrent?: boolean | undefined;
  /** What it is told no more. */
  removeParams?: readonly string[] | undefined;
  /** Limits that are not named are the broker's again. */
  defaultLimits?: boolean | undefined;
  /** With `on: 'derive'`: bytes of state that it may have for each partition. */
  stateBytes?: number | undefined;
  /** With `on: 'derive'`: how often a batch is tried again. */
  retries?: number | undefined;
}

/** A module on a topic, and what it has done since the broker started. */
export interface AttachmentStatus {
  /** The module. */
  readonly module: string;
  /** Which of its versions runs. */
  readonly version?: number;
  /** Whether it stays that version, whichever is the current one. */
  readonly pinned?: boolean;
  /** The SHA-256 of the upload, in hex. */
  readonly sha256: string;
  /** Where it runs. */
  readonly on: AttachPoint;
  /** On fetch: the view. */
  readonly view?: string;
  /** What it was given when it started. */
  readonly params?: Readonly<Record<string, string>>;
  /** What it may use: what it was given, and the broker's own limits for the rest. */
  readonly limits?: AttachLimits;
  /** What becomes of records on which it fails; `reject` where it is not there. */
  readonly onError?: string;
  /** Why it does not run at this moment. */
  readonly paused?: string;
  /** Records that were given to it. */
  readonly recordsIn: number;
  /** Records that it gave back. */
  readonly recordsOut: number;
  /** Records that it left out. */
  readonly recordsDropped: number;
  /** Records that came back with other bytes. */
  readonly recordsChanged: number;
  /** Batches that it ran on. */
  readonly batches: number;
  /** Batches on which it failed. */
  readonly failures: number;
  /** Records that were left out because it failed on them. */
  readonly recordsFailed: number;
  /** Time, memory, and how it failed. */
  readonly work?: AttachmentWork;
  /** With `on: 'derive'`: how far it is, in each partition. */
  readonly derived?: DerivedStatus;
}

/** What running a module has cost. A number that is not there is 0. */
export interface AttachmentWork {
  /** Records of batches that were refused because it failed on them. */
  readonly recordsRejected?: number;
  /** Those of {@link AttachmentStatus.recordsFailed} that became dead letters; the others were skipped. */
  readonly recordsDeadLettered?: number;
  /** Batches on which it failed, by the name of an error code, such as `guest_trapped`. */
  readonly failuresByKind?: Readonly<Record<string, number>>;
  /** The most memory that an instance had after a batch, in bytes. */
  readonly memoryBytesPeak?: number;
  /** How long it is at the batch that it is at for longest, in milliseconds; not there where that is less than a second. */
  readonly busyMs?: number;
  /** How long batches took. Not in a list of topics. */
  readonly batchTimes?: BatchTimes;
}

/** How long batches took. */
export interface BatchTimes {
  /** All of them. */
  readonly batches: number;
  /** Their times together, in microseconds. */
  readonly sumUs: number;
  /** How many took how long, by rising bound. */
  readonly buckets: readonly TimeBucket[];
}

/** Batches that took no longer than a bound. */
export interface TimeBucket {
  /** The bound, in microseconds. */
  readonly leUs: number;
  /** How many, those of the buckets before this one included. */
  readonly batches: number;
}

/** How a derived topic is doing. */
export interface DerivedStatus {
  /** The topics that it writes to. */
  readonly targets: readonly string[];
  /** Bytes of state that it may keep for each partition; 0 is none. */
  readonly stateBytesMax: number;
  /** How often it is tried again on a batch. */
  readonly retries: number;
  /** What its files may come to for each partition, in bytes. */
  readonly fileBytesMax?: number;
  /** One for each partition of the source, in order. */
  readonly partitions: readonly DerivedPartition[];
}

/** How a derived topic is doing on one partition of its source. */
export interface DerivedPartition {
  /** Which. */
  readonly partition: number;
  /** Every record before this offset has had its effect, and none from it on; -1n until the broker has read it after its start. */
  readonly position: bigint;
  /** What was made and is not in the targets yet. Not there where that is nothing, as nearly always. */
  readonly undelivered?: Undelivered;
  /** Offsets from there to the last one that consumers can see. */
  readonly lag: number;
  /** What the state counts, in bytes. */
  readonly stateBytes: number;
  /** Entries of the state. */
  readonly stateEntries: number;
  /** What its files have at this moment, in bytes. */
  readonly fileBytes?: number;
  /** Offsets that were passed over because they were gone, or damaged, before the module saw them. */
  readonly skipped?: number;
  /** What keeps it from going on at this moment. */
  readonly error?: string;
}

/** What a module has made that its targets do not have yet. */
export interface Undelivered {
  /** So many batches. */
  readonly batches: number;
  /** They were made of records before this offset, which the module is not given again. */
  readonly committed: bigint;
}

/** Where a module runs. */
export interface AttachedModule {
  /** The topic. */
  readonly topic: string;
  /** Where in its path. */
  readonly on: AttachPoint;
  /** On fetch: the view. */
  readonly view?: string;
  /** Whether it stays this version. */
  readonly pinned: boolean;
  /** How it is doing there. */
  readonly status?: AttachmentStatus;
}

/** One version of a module. */
export interface ModuleVersion {
  /** Its number; the first is 1. */
  readonly version: number;
  /** The SHA-256 of the upload, in hex. */
  readonly sha256: string;
  /** Bytes of the upload. */
  readonly sizeBytes: number;
  /** What kind of module it is. */
  readonly world: string;
  /** Whether it keeps state. */
  readonly stateful?: boolean;
  /** When it was deployed, by the broker's clock. */
  readonly deployedAt: Date;
  /** Where it runs. */
  readonly attached: readonly AttachedModule[];
  /** Why it can't run. */
  readonly unavailable?: string;
}

/** A module. */
export interface ModuleInfo {
  /** Its name. */
  readonly name: string;
  /** Its current version. */
  readonly version: number;
  /** The SHA-256 of that, in hex. */
  readonly sha256: string;
  /** Bytes of that. */
  readonly sizeBytes: number;
  /** What kind of module it is. */
  readonly world: string;
  /** Whether it keeps state. */
  readonly stateful?: boolean;
  /** The topics that it is attached to. */
  readonly attachedTo: readonly string[];
  /** All versions, the oldest first; in the answer to `describe` alone. */
  readonly versions?: readonly ModuleVersion[];
}

/** A place in a module's log, to read on from. */
export interface LogPlace {
  /** Which log. */
  readonly log: bigint;
  /** The next line. */
  readonly line: bigint;
}

/** What to read of a module's log. */
export interface LogOptions extends RequestOptions {
  /** Only on this topic. */
  topic?: string | undefined;
  /** How many lines at most; 1,000. */
  linesMax?: number | undefined;
  /** What was read already: {@link ModuleLog.next} of the answer before. */
  after?: readonly LogPlace[] | undefined;
}

/** What a module has logged. */
export interface ModuleLog {
  /** The lines, the oldest first. */
  readonly lines: readonly LogLine[];
  /** Lines that are not kept any more. */
  readonly linesLost: number;
  /** Where this answer ends. */
  readonly next: readonly LogPlace[];
}

/** One line of a module's log. */
export interface LogLine {
  /** When, by the broker's clock. */
  readonly at: Date;
  /** How bad. */
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  /** The topic. */
  readonly topic: string;
  /** The partition, where it was known. */
  readonly partition?: number;
  /** Where the module runs. */
  readonly on: AttachPoint;
  /** On fetch: the view. */
  readonly view?: string;
  /** Which version it was. */
  readonly version: number;
  /** The words. */
  readonly message: string;
  /** With a failure: on which batch, and where in the module. */
  readonly failure?: ModuleFailure;
}

/** A failure of a module on a batch. */
export interface ModuleFailure {
  /** The error code. */
  readonly code: string;
  /** The batch. */
  readonly batch: BatchCoordinates;
  /** The module's functions at the moment of a trap, innermost first, a line each. */
  readonly backtrace?: string;
  /** Failures before this one that have no line, because there were too many in one second. */
  readonly leftOut: number;
}

/** What tells a batch from others. */
export interface BatchCoordinates {
  /** Records that the module was given. */
  readonly records: number;
  /** The timestamp that those of its records are counted from. */
  readonly baseTimestamp: Date;
  /** Its first offset, where it is stored. */
  readonly baseOffset?: bigint;
}
