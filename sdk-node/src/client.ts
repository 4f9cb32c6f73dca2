/** The connection, and what is made from it. */

import { inspect, type InspectOptions } from 'node:util';
import { Admin } from './admin.js';
import { call, type Waiting } from './abort.js';
import type { ConsumerOptions } from './consumer-options.js';
import { Consumer } from './consumer.js';
import { ClosedError, closed, type DecodeError, wrongType } from './errors.js';
import { closed as isClosed, opened, Weakly, type OpenHandle } from './handles.js';
import { stringify, toWire } from './json.js';
import { Message, type Chunk } from './message.js';
import { native, type Native } from './native.js';
import { Producer, withTimeout, type CloseOptions, type ProducerOptions } from './producer.js';
import { kindOf, type Bytes, type Deserializer, type Serializer } from './serializers.js';

/** How to reach a broker. */
export interface ClientOptions extends Waiting {
  /** A PEM file of authorities to trust, whatever the address says. */
  caFile?: string | undefined;
  /** The fingerprint of the one certificate to trust, `sha256:` and 64 hex digits, whatever the address says. */
  fingerprint?: string | undefined;
  /** How long one attempt to connect may take, in milliseconds; 10,000. */
  connectTimeoutMs?: number | undefined;
  /** How long the broker may be silent before the connection counts as lost, in milliseconds; 20,000. */
  idleTimeoutMs?: number | undefined;
  /** How long a request may take, reconnecting and trying again included, in milliseconds; 30,000. */
  requestTimeoutMs?: number | undefined;
}

/**
 * Connects to a broker, as in `millpond://localhost:9440?fp=sha256:...`; the broker prints its address when it starts. Without an address: the one in
 * `MILLPOND_URL`, else the broker of this machine.
 *
 * Makes one attempt and fails with its error. Once connected, a client reconnects by itself. All that is made from it shares one connection.
 */
export async function connect(url?: string, options: ClientOptions = {}): Promise<Client> {
  if (url !== undefined && typeof url !== 'string') throw wrongType(`an address is a string, and this is ${kindOf(url)}`);
  const { signal, ...settings } = options;
  const json = stringify(toWire({ url: url ?? process.env['MILLPOND_URL'], ...settings }));
  return new Client(await call(signal, (cancel) => native.connect(json, cancel)));
}

/** A serializer for keys. */
export interface KeySerializer<K> {
  /** For keys. */
  key: Serializer<K>;
}

/** A serializer for values. */
export interface ValueSerializer<V> {
  /** For values. */
  value: Serializer<V>;
}

/** What the options of a producer must have where keys or values are neither strings nor bytes. */
export type Serializers<K, V> = ([K] extends [Bytes] ? unknown : KeySerializer<K>) & ([V] extends [Bytes] ? unknown : ValueSerializer<V>);

/** A deserializer for keys. */
export interface KeyDeserializer<K> {
  /** For keys. */
  key: Deserializer<K>;
}

/** A deserializer for values. */
export interface ValueDeserializer<V> {
  /** For values. */
  value: Deserializer<V>;
}

/** What the options of a consumer must have where keys or values shall be anything else than a `Buffer`. */
export type Deserializers<K, V> = ([Buffer] extends [K] ? unknown : KeyDeserializer<K>) & ([Buffer] extends [V] ? unknown : ValueDeserializer<V>);

/** A connection to a broker, from {@link connect}. */
export class Client implements AsyncDisposable {
  /** Topics, transforms, and the broker. */
  readonly admin: Admin;
  readonly #native: Native.Client;
  readonly #producers = new Weakly<{ close(options?: CloseOptions): Promise<void> }>();
  readonly #consumers = new Weakly<{ close(): Promise<void> }>();
  /** For dead letters, one for each topic. */
  readonly #letters = new Map<string, Producer>();
  #closing: Promise<void> | undefined;
  #requests = 0;

  /** @internal */
  constructor(client: Native.Client) {
    this.#native = client;
    this.admin = new Admin((request, wasm, signal) => this.#request(request, wasm, signal));
    opened(this);
  }

  /** The address of the broker. */
  get url(): string {
    return this.#native.url;
  }

  /** Whether the connection is up at this moment. Nothing needs to be done when it is not. */
  get isConnected(): boolean {
    return this.#native.isConnected;
  }

  /** QUIC's estimate of the round trip to the broker, in milliseconds; undefined while the connection is down. */
  get roundTripMs(): number | undefined {
    return this.#native.roundTripMs ?? undefined;
  }

  /**
   * Sends records to a topic. It is opened when it is first used; a topic that is not there is told by its first `send`. What is neither a string nor
   * bytes needs a serializer.
   */
  producer<K extends Bytes = Bytes, V extends Bytes = Bytes>(topic: string, options?: ProducerOptions<K, V>): Producer<K, V>;
  producer<K = Bytes, V = Bytes>(topic: string, options: ProducerOptions<K, V> & Serializers<K, V>): Producer<K, V>;
  producer<K, V>(topic: string, options: ProducerOptions<K, V> = {}): Producer<K, V> {
    this.#check(topic, options);
    const producer = new Producer<K, V>(this.#native, topic, options, (gone) => this.#producers.delete(gone));
    this.#producers.add(producer);
    return producer;
  }

  /** Reads records of a topic. It is opened when it is first used. What shall be anything else than a `Buffer` needs a deserializer. */
  consumer(topic: string, options?: ConsumerOptions<Buffer, Buffer>): Consumer<Buffer, Buffer>;
  consumer<K = Buffer, V = Buffer>(topic: string, options: ConsumerOptions<K, V> & Deserializers<K, V>): Consumer<K, V>;
  consumer<K, V>(topic: string, options: ConsumerOptions<K, V> = {}): Consumer<K, V> {
    this.#check(topic, options);
    const letters = (to: string, chunk: Chunk, index: number, error: DecodeError): Promise<void> => this.#letter(to, chunk, index, error);
    const consumer = new Consumer<K, V>(this.#native, topic, options, letters, (gone) => this.#consumers.delete(gone));
    this.#consumers.add(consumer);
    return consumer;
  }

  /**
   * Closes consumers, waits for the answers to what producers have sent (`timeoutMs` at most), and closes the connection. Rejects where records
   * failed or were not answered, and is closed in any case. Closing it again does nothing more.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    if (!this.#closing) {
      // Wrong options are told, and nothing is closed.
      withTimeout(options);
      this.#closing = this.#close(options);
    }
    await this.#closing;
  }

  /** Closes it, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What `console.log` shows. */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { url, isConnected } = this;
    return `Client ${inspect({ url, isConnected, isClosed: this.#closing !== undefined }, options)}`;
  }

  /** @internal */
  describe(): OpenHandle {
    const count = this.#requests;
    const waitsFor = count > 0 ? `the answers to ${count} ${count === 1 ? 'request' : 'requests'}` : undefined;
    return { kind: 'client', name: this.url.replace(/\?.*/, ''), waitsFor };
  }

  async #close(options: CloseOptions): Promise<void> {
    const consumers = [...this.#consumers].map((consumer) => consumer.close());
    const producers = [...this.#producers].map((producer) => producer.close(options));
    const ended = await Promise.allSettled([...consumers, ...producers]);
    await this.#native.close();
    isClosed(this);
    for (const outcome of ended) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #check(topic: unknown, options: unknown): void {
    if (this.#closing) throw closed('client');
    if (typeof topic !== 'string') throw wrongType(`a topic is a string, and this is ${kindOf(topic)}`);
    if (options === null || typeof options !== 'object') throw wrongType(`options are an object, and this is ${kindOf(options)}`);
  }

  async #request(request: Record<string, unknown>, wasm: Uint8Array | undefined, signal: AbortSignal | undefined): Promise<string> {
    if (this.#closing) throw closed('client');
    this.#requests++;
    try {
      return await call(signal, (cancel) => this.#native.admin(stringify(request), wasm, cancel), true);
    } finally {
      this.#requests--;
    }
  }

  /** Sends a record that could not be decoded to another topic, with what went wrong in its headers, as the broker does for its transforms. */
  async #letter(topic: string, chunk: Chunk, index: number, error: DecodeError): Promise<void> {
    if (this.#closing) throw new ClosedError('the client is closed', { code: 'closed', cause: error });
    let producer = this.#letters.get(topic);
    if (!producer) this.#letters.set(topic, (producer = this.producer(topic)));
    const message = new Message(chunk, index);
    await producer.send({
      key: message.rawKey,
      value: message.rawValue,
      timestamp: message.timestampMs,
      headers: [
        ...message.headers,
        ['millpond.error', error.message],
        ['millpond.error.code', error.code],
        ['millpond.topic', message.topic],
        ['millpond.partition', String(message.partition)],
        ['millpond.offset', String(message.offset)],
      ],
    });
  }
}

