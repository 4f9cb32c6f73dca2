/**
 * The client of Millpond, an edge broker.
 *
 * ```ts
 * import { connect } from 'millpond';
 *
 * await using client = await connect('millpond://localhost:9440?fp=sha256:...');
 * await client.admin.createTopic('readings', { partitions: 2 });
 * const producer = client.producer('readings');
 * const { partition, offset } = await producer.send({ key: 'device-7', value: '21.4', headers: { unit: 'C' } });
 * for await (const message of client.consumer('readings', { start: 'beginning' })) console.log(message.value?.toString());
 * ```
 *
 * @packageDocumentation
 */

export type { Waiting } from './abort.js';
export {
  Admin,
  Transforms,
  type AttachedModule,
  type AttachLimits,
  type AttachmentStatus,
  type AttachmentWork,
  type AlterOptions,
  type AttachOptions,
  type AttachPoint,
  type BatchCoordinates,
  type BatchTimes,
  type BrokerInfo,
  type Cleanup,
  type CompactionStatus,
  type CreateTopicOptions,
  type DerivedPartition,
  type DerivedStatus,
  type DeriveOptions,
  type DetachOptions,
  type Dropped,
  type KnownDamage,
  type LogLine,
  type LogOptions,
  type LogPlace,
  type ModuleFailure,
  type ModuleInfo,
  type ModuleLog,
  type ModuleVersion,
  type NodeSpace,
  type OffsetFound,
  type PartitionInfo,
  type Refused,
  type Refusing,
  type RequestOptions,
  type TimeBucket,
  type TopicChange,
  type TopicConfig,
  type TopicInfo,
  type TopicSettings,
  type Undelivered,
} from './admin.js';
export { Places, type Fate, type RecordPlace } from './answers.js';
export {
  Client,
  connect,
  type ClientOptions,
  type Deserializers,
  type KeyDeserializer,
  type KeySerializer,
  type Serializers,
  type ValueDeserializer,
  type ValueSerializer,
} from './client.js';
export type {
  AtOffset,
  AtTime,
  BatchOptions,
  ConsumerOptions,
  MessageStream,
  Messages,
  Offsets,
  OnDecodeError,
  PartitionState,
  Place,
  RunOptions,
  StreamOptions,
} from './consumer-options.js';
export { Consumer } from './consumer.js';
export {
  AbortError,
  AlreadyExistsError,
  ClosedError,
  ConnectionError,
  CorruptError,
  DecodeError,
  DeniedError,
  EncodeError,
  InternalError,
  InUseError,
  InvalidError,
  MillpondError,
  NotFoundError,
  OffsetOutOfRangeError,
  SequenceError,
  StorageError,
  TimeoutError,
  TooLargeError,
  TransformError,
  UnavailableError,
  WrongTypeError,
  type ErrorDetails,
  type OffsetRange,
} from './errors.js';
export { openHandles, type OpenHandle } from './handles.js';
export { Batch, Headers, Message } from './message.js';
export {
  Producer,
  type CloseOptions,
  type HeadersInit,
  type NewRecord,
  type ProducerOptions,
  type ProducerSettings,
  type ProducerStats,
} from './producer.js';
export type { RunTransformOptions, Transformed } from './run-transform.js';
export { buffer, json, string, type Bytes, type Codec, type Deserializer, type Serializer } from './serializers.js';
