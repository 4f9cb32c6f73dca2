/** How keys and values become bytes and come back. */

import { wrongType } from './errors.js';

/** Turns a key or a value into bytes. What is `null` never reaches it: it is stored as a null. */
export interface Serializer<T> {
  /** The bytes; a string is written as UTF-8. */
  serialize(value: T): Uint8Array | string;
}

/** Makes a key or a value of bytes. A null never reaches it. */
export interface Deserializer<T> {
  /** The value. The bytes are a view over the batch: keep a copy of them, not themselves. */
  deserialize(bytes: Buffer): T;
}

/** Both ways. Any object with these two methods will do. */
export interface Codec<T> extends Serializer<T>, Deserializer<T> {}

/** What is taken where no serializer is named. */
export type Bytes = string | Uint8Array;

/** JSON. The type is what you say it is; nothing looks at what is in the records. */
export function json<T>(): Codec<T> {
  return {
    serialize(value: T): string {
      const text: string | undefined = JSON.stringify(value);
      if (text === undefined) throw new TypeError(`${typeof value} has no JSON`);
      return text;
    },
    deserialize: (bytes: Buffer): T => JSON.parse(bytes.toString('utf8')) as T,
  };
}

/** Text as UTF-8. Bytes that are not UTF-8 are an error, not a replacement character. */
export function string(): Codec<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  return {
    serialize(value: string): string {
      if (typeof value !== 'string') throw wrongType(`a string is expected, and this is ${kindOf(value)}`);
      return value;
    },
    deserialize: (bytes: Buffer): string => decoder.decode(bytes),
  };
}

/** Bytes as they are: strings and bytes are sent, a `Buffer` comes back. What holds where no serializer is named. */
export function buffer(): Serializer<Bytes> & Deserializer<Buffer> {
  return BUFFER;
}

/** @internal */
export const BUFFER: Serializer<Bytes> & Deserializer<Buffer> = {
  serialize(value: Bytes): Bytes {
    if (typeof value !== 'string' && !(value instanceof Uint8Array)) {
      throw wrongType(`a string or bytes are expected, and this is ${kindOf(value)}`, 'name a serializer, as in { value: json() }');
    }
    return value;
  },
  deserialize: (bytes: Buffer): Buffer => bytes,
};

/** What something is, for a message. @internal */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value !== 'object') return `a ${typeof value}`;
  const name = (value as { constructor?: { name?: string } }).constructor?.name;
  return name ? `an object of the class ${name}` : 'an object';
}
