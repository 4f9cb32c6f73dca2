/** What the broker says of itself and of topics, and what topics can be asked to be. */

import type { Waiting } from './abort.js';
import type { AttachmentStatus } from './admin-types.js';

/** What can be given to every request. */
export interface RequestOptions extends Waiting {
  /** How long it may take, reconnecting and trying again included, in milliseconds; the client's `requestTimeoutMs`. */
  timeoutMs?: number | undefined;
}

/** What becomes of old records: `delete` by age and size, `compact` to the latest of each key, or both. */
export type Cleanup = 'delete' | 'compact' | 'compact,delete';

/** The settings of a topic that can be given; the broker's defaults hold for the others. */
export interface TopicSettings {
  /** When a batch is acknowledged: `sync` after it is on the disk, `interval:200ms` or `os` before that. */
  durability?: 'sync' | 'os' | `interval:${string}` | undefined;
  /** The size at which a segment file is closed, in bytes. */
  segmentBytes?: number | undefined;
  /** The largest batch that is taken, in bytes. */
  maxBatchBytes?: number | undefined;
  /** Records are deleted once they were appended longer ago than this, in milliseconds. */
  retentionMs?: number | undefined;
  /** The oldest records of a partition go while it has as many bytes without them. */
  retentionBytes?: number | undefined;
  /** What becomes of old records. */
  cleanup?: Cleanup | undefined;
  /** How long a tombstone is kept at least in a compacted topic, in milliseconds. */
  deleteRetentionMs?: number | undefined;
  /** Bytes that the topic may have. */
  quotaBytes?: number | undefined;
  /** What becomes of a batch for which there is no room. */
  onFull?: 'reject' | 'drop-oldest' | undefined;
}

/** How to make a topic. */
export interface CreateTopicOptions extends TopicSettings, RequestOptions {
  /** How many partitions, 1 to 10,000; 1. */
  partitions?: number | undefined;
  /** What to do where there is a topic with this name: fail, or take it as it is. */
  ifExists?: 'error' | 'ok' | undefined;
}

/** What to change of a topic. A limit is lifted with `unlimited`. */
export interface TopicChange extends RequestOptions {
  /** See {@link TopicSettings.durability}. */
  durability?: TopicSettings['durability'];
  /** See {@link TopicSettings.maxBatchBytes}. */
  maxBatchBytes?: number | undefined;
  /** See {@link TopicSettings.retentionMs}. */
  retentionMs?: number | 'unlimited' | undefined;
  /** See {@link TopicSettings.retentionBytes}. */
  retentionBytes?: number | 'unlimited' | undefined;
  /** See {@link TopicSettings.cleanup}. */
  cleanup?: Cleanup | undefined;
  /** See {@link TopicSettings.deleteRetentionMs}. */
  deleteRetentionMs?: number | undefined;
  /** See {@link TopicSettings.quotaBytes}. */
  quotaBytes?: number | 'unlimited' | undefined;
  /** See {@link TopicSettings.onFull}. */
  onFull?: TopicSettings['onFull'];
}

/** The settings of a topic; a limit that is undefined is none. */
export interface TopicConfig {
  /** See {@link TopicSettings.durability}. */
  readonly durability: string;
  /** See {@link TopicSettings.segmentBytes}. */
  readonly segmentBytes: number;
  /** See {@link TopicSettings.maxBatchBytes}. */
  readonly maxBatchBytes: number;
  /** See {@link TopicSettings.retentionMs}. */
  readonly retentionMs?: number;
  /** See {@link TopicSettings.retentionBytes}. */
  readonly retentionBytes?: number;
  /** See {@link TopicSettings.cleanup}. */
  readonly cleanup: Cleanup;
  /** See {@link TopicSettings.deleteRetentionMs}. */
  readonly deleteRetentionMs: number;
  /** See {@link TopicSettings.quotaBytes}. */
  readonly quotaBytes?: number;
  /** See {@link TopicSettings.onFull}. */
  readonly onFull: 'reject' | 'drop-oldest';
}

/** A partition of a topic. */
export interface PartitionInfo {
  /** Its number. */
  readonly partition: number;
  /** The first offset that is still there. */
  readonly logStart: bigint;
  /** One past the last offset that can be read. */
  readonly highWatermark: bigint;
  /** One past the last offset that was written. */
  readonly logEnd: bigint;
  /** Bytes of its batches. */
  readonly sizeBytes: number;
  /** Why it has stopped writing, if it has. */
  readonly failure?: string | null;
  /** What can be done about that; where one topic is asked for. */
  readonly failureHint?: string;
  /** Whether nothing of it can be read, either. */
  readonly unreadable: boolean;
  /** Why its last batch was refused for want of room; undefined once there is room. */
  readonly refusing?: Refusing;
  /** Damage in the middle of its log, where the broker has met some. */
  readonly damage?: KnownDamage;
  /** How far its compaction is; where one topic is asked for that is compacted. */
  readonly compaction?: CompactionStatus;
}

/** Why a partition takes no batch for the moment. It takes them again by itself. */
export interface Refusing {
  /** What has no room: `topic` and `node` for the quotas of the topic and of the broker, `disk`. */
  readonly bound: string;
  /** How full that is, in words; where one topic is asked for. */
  readonly reason?: string;
  /** What can be done about it; where one topic is asked for. */
  readonly hint?: string;
  /** Seconds since the last batch was refused; null if none was, and the next one would be. */
  readonly secondsAgo: number | null;
}

/** Places in a log that cannot be read, with records behind them that can. */
export interface KnownDamage {
  /** How many there are. */
  readonly ranges: number;
  /** The first offset in the first of them. */
  readonly firstOffset: bigint;
}

/** How far the compaction of a partition is, and what it has done since the broker started. */
export interface CompactionStatus {
  /** Of the records before this offset, only the latest of each key are left. */
  readonly compactedTo: bigint;
  /** Bytes of closed segments that no pass has looked at. */
  readonly dirtyBytes: number;
  /** Passes that came to their end. */
  readonly passes: number;
  /** Passes that did not. */
  readonly failures: number;
  /** Bytes that the log has less by it. */
  readonly bytesRemoved: number;
  /** Seconds since the last pass came to its end. */
  readonly secondsSincePass?: number;
  /** Why the last pass failed, if it has. */
  readonly failure?: string | null;
}

/** A topic. */
export interface TopicInfo {
  /** Its name. */
  readonly name: string;
  /** Its settings. */
  readonly config: TopicConfig;
  /** A number that grows with each change of its settings. */
  readonly epoch: number;
  /** Its partitions, in order. */
  readonly partitions: readonly PartitionInfo[];
  /** The transforms that run on it, in the order in which they run. */
  readonly attachments: readonly AttachmentStatus[];
  /** Bytes of its batches. */
  readonly usedBytes: number;
  /** What `onFull: 'drop-oldest'` has deleted since the broker started. */
  readonly dropped: Dropped;
  /** Batches that were refused since the broker started, by what had no room for them. */
  readonly refused: Refused;
  /** The room that the broker has for all topics; where one topic is asked for. */
  readonly node?: NodeSpace;
}

/** What a topic has lost to `onFull: 'drop-oldest'` since the broker started. */
export interface Dropped {
  /** Segments that were deleted, whole. */
  readonly segments: number;
  /** Records that went with them. */
  readonly records: number;
  /** Bytes of their batches. */
  readonly bytes: number;
}

/** Batches of a topic that were refused since the broker started, by what had no room for them. */
export interface Refused {
  /** The topic's quota. */
  readonly topic: number;
  /** The broker's quota. */
  readonly node: number;
  /** The disk. */
  readonly disk: number;
}

/** The room of a broker, for all its topics together. */
export interface NodeSpace {
  /** Bytes of all batches: what counts against the quota. */
  readonly usedBytes: number;
  /** How many there may be; null for no limit. */
  readonly quotaBytes: number | null;
  /** Bytes of the disk that are kept free for cleaning up; 0 for none. */
  readonly reserveBytes: number;
  /** Whether they are there. As long as they are not, no batch is taken. */
  readonly reserveHeld: boolean;
}

/** The broker. */
export interface BrokerInfo {
  /** Its version. */
  readonly version: string;
  /** The largest batch that it takes, in bytes. */
  readonly maxBatchBytes: number;
  /** The largest module that it takes, in bytes. */
  readonly maxModuleBytes: number;
}

/** An offset for a place. */
export interface OffsetFound {
  /** The offset. */
  readonly offset: bigint;
  /** The timestamp of the record there in milliseconds, for a time that was found. */
  readonly timestamp?: number | null;
}
