/** Records on their way from the shelf to a reader: decoded, or dealt with where that fails. @internal */

import { checkPolicy, decodeError, decoded, deserializer, type ConsumerOptions, type DeadLetters, type OnDecodeError } from './consumer-options.js';
import { DecodeError } from './errors.js';
import { AS_SENT, Message, rawKey, rawValue, type Chunk } from './message.js';
import { BUFFER, type Deserializer } from './serializers.js';
import type { Rest, Shelf } from './shelf.js';

/** Dead letters that are on their way together, at most. */
const LETTERS_MAX = 1_000;

/** A record that becomes a dead letter. */
interface Letter {
  readonly index: number;
  readonly error: DecodeError;
}

/** @internal */
export class Decoding<K, V> {
  /** Whether nothing is decoded. */
  readonly isRaw: boolean;
  readonly #key: Deserializer<K>;
  readonly #value: Deserializer<V>;
  readonly #policy: OnDecodeError;
  readonly #deadLetterTopic: string | undefined;
  readonly #deadLetters: DeadLetters;
  /** Dead letters that are not stored yet: nothing is handed out meanwhile. */
  #storing: Promise<void> | undefined;

  constructor(options: ConsumerOptions<K, V>, deadLetters: DeadLetters) {
    const { key, value, onDecodeError = 'raise', deadLetterTopic } = options;
    this.#key = deserializer(key, 'key');
    this.#value = deserializer(value, 'value');
    this.isRaw = (key === undefined || (key as unknown) === BUFFER) && (value === undefined || (value as unknown) === BUFFER);
    checkPolicy(onDecodeError, deadLetterTopic);
    this.#policy = onDecodeError;
    this.#deadLetterTopic = deadLetterTopic;
    this.#deadLetters = deadLetters;
  }

  /** The next record that is here; a promise where it has to be waited for dead letters first; undefined where nothing is here. */
  take(shelf: Shelf): Message<K, V> | Promise<void> | undefined {
    shelf.check();
    if (this.#storing) return this.#storing;
    for (;;) {
      const rest = shelf.first;
      if (!rest) return undefined;
      const index = rest.next++;
      if (this.isRaw) return new Message(rest.chunk, index);
      const made = this.#made(rest, index);
      if (made instanceof DecodeError) return (this.#storing = this.#store(shelf, rest, { index, error: made }));
      if (made) return made;
    }
  }

  /** The record; the error of one that becomes a dead letter; undefined for one that is left out. */
  #made(rest: Rest, index: number): Message<K, V> | DecodeError | undefined {
    if (rest.ahead?.index === index) {
      const { message } = rest.ahead;
      rest.ahead = undefined;
      return message as Message<K, V>;
    }
    return rest.stored?.has(index) ? undefined : this.#decode(rest.chunk, index);
  }

  #decode(chunk: Chunk, index: number): Message<K, V> | DecodeError | undefined {
    let part: 'key' | 'value' = 'key';
    try {
      const keyBytes = rawKey(chunk, index);
      const key = keyBytes && decoded(this.#key.deserialize(keyBytes));
      part = 'value';
      const valueBytes = rawValue(chunk, index);
      return new Message(chunk, index, key, valueBytes && decoded(this.#value.deserialize(valueBytes)));
    } catch (cause) {
      const error = decodeError(chunk, index, part, cause);
      switch (this.#policy) {
        case 'raise':
          throw error;
        case 'skip':
          return undefined;
        case 'raw':
          return new Message<K, V>(chunk, index, AS_SENT, AS_SENT, error);
        case 'dead-letter':
          return error;
      }
    }
  }

  /**
   * Stores the dead letters of a record and of those right behind it that cannot be decoded either: they share batches. The next read tries again from
   * the first that could not be stored, so that no record is lost, and leaves out those behind it that were.
   */
  async #store(shelf: Shelf, rest: Rest, first: Letter): Promise<void> {
    try {
      const letters = [first, ...this.#following(rest)];
      const end = rest.next;
      const store = ({ index, error }: Letter): Promise<void> => this.#deadLetters(this.#deadLetterTopic as string, rest.chunk, index, error);
      const outcomes = await Promise.allSettled(letters.map(store));
      const failed = outcomes.findIndex((outcome) => outcome.status === 'rejected');
      if (failed < 0) return;
      const stored = (rest.stored ??= new Set());
      for (const [at, { index }] of letters.entries()) if (outcomes[at]?.status === 'fulfilled') stored.add(index);
      shelf.putBack(rest, (letters[failed] as Letter).index, end);
      throw (outcomes[failed] as PromiseRejectedResult).reason;
    } finally {
      this.#storing = undefined;
    }
  }

  #following(rest: Rest): Letter[] {
    const letters: Letter[] = [];
    while (letters.length < LETTERS_MAX - 1 && rest.next < rest.chunk.offsets.length) {
      const index = rest.next;
      const made = this.#made(rest, index);
      if (made instanceof Message) {
        // Its turn comes once the letters before it are stored.
        rest.ahead = { index, message: made };
        break;
      }
      rest.next++;
      if (made) letters.push({ index, error: made });
    }
    return letters;
  }
}
