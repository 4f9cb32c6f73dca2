/** Topics, transforms, and the broker. */

import { setTimeout } from 'node:timers/promises';
import { check } from './abort.js';
import type {
  AlterOptions,
  AttachOptions,
  AttachmentStatus,
  BrokerInfo,
  CreateTopicOptions,
  DetachOptions,
  LogLine,
  LogOptions,
  ModuleInfo,
  ModuleLog,
  OffsetFound,
  RequestOptions,
  TopicChange,
  TopicInfo,
} from './admin-types.js';
import { place, type Place } from './consumer-options.js';
import { AlreadyExistsError, invalid, wrongType, type TransformError } from './errors.js';
import { fromWire, parse, toWire } from './json.js';
import { moduleBytes } from './module-bytes.js';
import type { NewRecord } from './producer.js';
import { run, type RunTransformOptions, type Transformed } from './run-transform.js';
import { kindOf, type Bytes } from './serializers.js';

export type * from './admin-types.js';

/** Sends a request. @internal */
export type Requester = (request: Record<string, unknown>, wasm: Uint8Array | undefined, signal: AbortSignal | undefined) => Promise<string>;

const STRING = { shape: 'a string', is: (value: unknown): boolean => typeof value === 'string' };
const WHOLE = { shape: 'a whole number from 0 on', is: (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0 };

/** What is given in its place, and of what kind it is. */
const KINDS: Readonly<Record<string, { what: string; shape: string; is(value: unknown): boolean }>> = {
  name: { what: 'name', ...STRING },
  topic: { what: 'topic', ...STRING, is: (value) => value === undefined || typeof value === 'string' },
  module: { what: 'module', ...STRING },
  partition: { what: 'partition', ...WHOLE },
  partitions: { what: 'number of partitions', ...WHOLE },
};

class Requests {
  readonly #send: Requester;

  /** @internal */
  constructor(send: Requester) {
    this.#send = send;
  }

  /** @internal */
  protected async ask(name: string, fields: object, options: RequestOptions = {}, wasm?: Uint8Array): Promise<unknown> {
    for (const [field, value] of Object.entries(fields) as [string, unknown][]) {
      const kind = KINDS[field];
      if (kind && !kind.is(value)) throw wrongType(`the ${kind.what} is ${kind.shape}, and this is ${kindOf(value)}`);
    }
    const request = { call: name, ...toWire(fields), ...toWire({ timeoutMs: options.timeoutMs }) };
    return fromWire(parse(await this.#send(request, wasm, options.signal)));
  }
}

/** Requests about topics, transforms and the broker. From `client.admin`. Aborting a request ends the wait; it may have been done. */
export class Admin extends Requests {
  /** Modules that the broker runs on records. */
  readonly transforms: Transforms;

  /** @internal */
  constructor(send: Requester) {
    super(send);
    this.transforms = new Transforms(send);
  }

  /** What the broker is. */
  async brokerInfo(options: RequestOptions = {}): Promise<BrokerInfo> {
    return (await this.ask('broker_info', {}, options)) as BrokerInfo;
  }

  /** Makes a topic. Fails with the code `topic_exists` if there is one, unless `ifExists` is `ok`. */
  async createTopic(name: string, options: CreateTopicOptions = {}): Promise<TopicInfo> {
    const { partitions = 1, ifExists = 'error', timeoutMs, signal, ...settings } = options;
    if (ifExists !== 'error' && ifExists !== 'ok') throw invalid(`\`ifExists\` cannot be ${String(ifExists)}: it is \`error\` or \`ok\``);
    try {
      return (await this.ask('create_topic', { name, partitions, config: toWire(settings) }, { timeoutMs, signal })) as TopicInfo;
    } catch (error) {
      if (ifExists === 'ok' && error instanceof AlreadyExistsError) return await this.topic(name, { timeoutMs, signal });
      throw error;
    }
  }

  /** Changes settings of a topic while it is used; what is not named stays as it is. */
  async alterTopic(name: string, change: TopicChange): Promise<TopicInfo> {
    const { timeoutMs, signal, ...settings } = change;
    return (await this.ask('alter_topic', { name, config: toWire(settings) }, { timeoutMs, signal })) as TopicInfo;
  }

  /** Removes a topic and all its records. */
  async deleteTopic(name: string, options: RequestOptions = {}): Promise<void> {
    await this.ask('delete_topic', { name }, options);
  }

  /** All topics, in the order of their names. */
  async topics(options: RequestOptions = {}): Promise<TopicInfo[]> {
    return (await this.ask('topics', {}, options)) as TopicInfo[];
  }

  /** One topic. */
  async topic(name: string, options: RequestOptions = {}): Promise<TopicInfo> {
    return (await this.ask('topic', { name }, options)) as TopicInfo;
  }

  /** The offset of a place in a partition. */
  async listOffset(topic: string, partition: number, at: Place, options: RequestOptions = {}): Promise<OffsetFound> {
    return (await this.ask('list_offset', { topic, partition, at: place(at) }, options)) as OffsetFound;
  }

  /** Deletes the records of a partition that lie before a place, for good. The answer is the first offset that is still there. */
  async deleteRecords(topic: string, partition: number, before: Place, options: RequestOptions = {}): Promise<bigint> {
    const answer = (await this.ask('delete_records', { topic, partition, before: place(before) }, options)) as { logStart: bigint };
    return answer.logStart;
  }
}

/** WebAssembly modules that the broker runs on records. From `client.admin.transforms`. */
export class Transforms extends Requests {
  /** Uploads a module, from a file or as bytes; the broker checks and compiles it before it answers. It becomes the current version at once. */
  async deploy(name: string, wasm: string | URL | Uint8Array, options: RequestOptions = {}): Promise<ModuleInfo> {
    return (await this.ask('deploy_module', { name }, options, await moduleBytes(wasm))) as ModuleInfo;
  }

  /** All modules, in the order of their names. */
  async list(options: RequestOptions = {}): Promise<ModuleInfo[]> {
    return (await this.ask('modules', {}, options)) as ModuleInfo[];
  }

  /** One module with all its versions. */
  async describe(name: string, options: RequestOptions = {}): Promise<ModuleInfo> {
    return (await this.ask('module', { name }, options)) as ModuleInfo;
  }

  /** Makes another version the current one: this, or the one that was current before. */
  async rollback(name: string, options: RequestOptions & { to?: number | undefined } = {}): Promise<ModuleInfo> {
    return (await this.ask('rollback_module', { name, to: options.to }, options)) as ModuleInfo;
  }

  /** Removes a module, or one version of it: `NAME`, `NAME@3` or `NAME@sha256:HEX`. */
  async delete(module: string, options: RequestOptions = {}): Promise<void> {
    await this.ask('delete_module', { module }, options);
  }

  /** Runs a module on a topic: the current version, whichever that is, or the one that is named (`NAME@3`). */
  async attach(topic: string, module: string, options: AttachOptions = {}): Promise<void> {
    const { on = 'produce', limits, derive, view, params, onError, ...rest } = options;
    const into = derive && { ...derive, start: derive.start === undefined ? undefined : place(derive.start) };
    const fields = { topic, module, on, view, params, onError, limits: limits && toWire(limits), derive: into && toWire(into) };
    await this.ask('attach', fields, rest);
  }

  /**
   * Stops running a module on a topic. The answer is how it was at its end: for what derived topics, with the offsets from which it would go on.
   * Undefined from a broker that does not tell.
   */
  async detach(topic: string, module: string, options: DetachOptions = {}): Promise<AttachmentStatus | undefined> {
    const { on = 'produce', view, force, ...rest } = options;
    return ((await this.ask('detach', { topic, module, on, view, force }, rest)) as AttachmentStatus | null) ?? undefined;
  }

  /**
   * Runs a module from a file on records as a broker would, in the same host and under the same limits, and gives what comes out. No broker is asked: the
   * binary `millpond` does it, which `MILLPOND_BIN` names or the `PATH` has; the code `broker_missing` says that it was not found. Rejects with a
   * {@link TransformError} where the module fails.
   */
  test(module: string | URL | Uint8Array, records: Iterable<NewRecord | Bytes>, options: RunTransformOptions = {}): Promise<Transformed[]> {
    return run(module, records, options);
  }

  /** Changes how a module runs, from the next batch on; with `NAME@3` it stays that version. What derives topics goes on where it is. */
  async alter(topic: string, module: string, options: AlterOptions = {}): Promise<AttachmentStatus> {
    const { timeoutMs, signal, on = 'produce', limits, ...change } = options;
    const fields = { topic, module, on, ...change, limits: limits && toWire(limits) };
    return (await this.ask('alter_attachment', fields, { timeoutMs, signal })) as AttachmentStatus;
  }

  /** What a module has logged, and how it failed. To follow it, ask again with `after` of the answer's `next`. */
  async logs(module: string, options: LogOptions = {}): Promise<ModuleLog> {
    const { topic, linesMax, after, ...rest } = options;
    return (await this.ask('module_log', { module, topic, linesMax, after }, rest)) as ModuleLog;
  }

  /**
   * The lines of a module's log as they come, from those that are kept now; from `after` on where that is given. Goes on until the loop is left or the
   * signal is aborted. A line may be missing where more are logged than the broker keeps: {@link Transforms.logs} tells how many.
   */
  async *follow(module: string, options: LogOptions = {}): AsyncGenerator<LogLine, void, undefined> {
    let { after } = options;
    for (;;) {
      const log = await this.logs(module, { ...options, after });
      yield* log.lines;
      after = log.next;
      if (log.lines.length === 0) await pause(LOOK_AGAIN_MS, options.signal);
    }
  }
}

/** How often a log in which nothing is new is asked for. */
const LOOK_AGAIN_MS = 500;

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await setTimeout(ms, undefined, signal && { signal }).catch(() => check(signal));
}
