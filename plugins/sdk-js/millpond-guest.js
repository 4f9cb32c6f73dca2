// Write modules that run inside the Millpond broker: transforms, which change records before they are stored, and partitioners, which
// place them.
//
//     import { Guest } from "./millpond-guest.js";
//
//     export default class Short extends Guest {
//         constructor(params) {
//             super();
//             params.only("bytes_max");
//             this.bytesMax = params.number("bytes_max", 1024);
//         }
//
//         transform(record, out) {
//             if (record.value === null || record.value.length <= this.bytesMax) out.keep(record); // neither kept nor emitted: dropped
//         }
//     }
//
// A partitioner has `partition(record, partitionCount)` in place of `transform`. An error that is thrown fails the batch at this record, and
// its message is shown to whoever sent it. There is no clock, no random number, no file and no network; memory, time and output are limited.
// What a guest remembers between batches is a cache at most: there may be several instances, and each may be replaced at any time.
//
//  one record, numbers are zig-zag varints of seven bits in a byte, the lowest first (KIP-98)
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//  | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
//  |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//           |<------------------------------ length ------------------------------------------------------>|
//  a length of -1 is a key or a value that is not there; a header is name length, name, value length, value

/** What a guest can do before the records of a batch; a class of its own may leave all of it out. */
export class Guest {
    /** Called before the records of each batch, with its topic, partition, baseTimestamp and recordCount. */
    begin(_batch) {}
}

/** One record. Keys and values are a Uint8Array, or null where there is none. */
export class Record {
    #section;
    #headersAt;
    #headers = null;

    /** @internal */
    constructor(section, start, end, timestamp, offsetDelta, key, value, headersAt) {
        this.#section = section;
        this.#headersAt = headersAt;
        /** @internal */
        this.start = start;
        /** @internal */
        this.end = end;
        /** When it happened, in milliseconds since 1970-01-01 UTC, as the producer says. */
        this.timestamp = timestamp;
        /** The record's place in its batch. */
        this.offsetDelta = offsetDelta;
        this.key = key;
        this.value = value;
    }

    /** Names and values of the headers, in order: [["name", Uint8Array or null], ...]. */
    get headers() {
        return (this.#headers ??= this.#section === null ? [] : readHeaders(this.#section, this.#headersAt));
    }

    /** The value of the first header of this name; undefined without one. */
    header(name) {
        return this.headers.find(([found]) => found === name)?.[1];
    }

    /** The value as text; the empty text if there is none. Throws where it is not UTF-8. */
    text() {
        return this.value === null ? "" : text(this.value);
    }

    /** The value as JSON that must be an object. */
    json() {
        let value;
        try {
            value = JSON.parse(this.text());
        } catch {
            value = null;
        }
        if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error("the value is not a JSON object");
        return value;
    }

    /** The same record with other parts: `{ key, value, headers, timestamp }`, each of them optional. Text may stand for bytes. */
    with({ key = this.key, value = this.value, headers = this.headers, timestamp = this.timestamp }) {
        if (!Number.isSafeInteger(timestamp)) throw new TypeError("a timestamp is a whole number of milliseconds");
        const changed = new Record(null, 0, 0, timestamp, this.offsetDelta, bytes(key), bytes(value), 0);
        changed.#headers = headers.map(([name, value]) => [name, bytes(value)]);
        return changed;
    }
}

/** Names and values, as they were given to `millpond transform attach TOPIC MODULE --param NAME=VALUE`. */
export class Params {
    #values;

    constructor(pairs) {
        this.#values = new Map(pairs); // if a name is there twice, the last counts
    }

    /** The text of a setting, or a default. */
    string(name, otherwise) {
        return this.#values.get(name) ?? otherwise;
    }

    /** A setting as a number, or a default. */
    number(name, otherwise) {
        const value = this.#values.get(name);
        if (value === undefined) return otherwise;
        const number = value.trim() === "" ? NaN : Number(value);
        if (!Number.isFinite(number)) throw new Error(`the setting \`${name}\` can't be \`${value}\`: it is not a number`);
        return number;
    }

    /** A setting that is true or false, or a default. */
    boolean(name, otherwise) {
        const value = this.#values.get(name);
        if (value === undefined) return otherwise;
        if (value !== "true" && value !== "false") throw new Error(`the setting \`${name}\` can't be \`${value}\`: it is true or false`);
        return value === "true";
    }

    /** The text of a setting that must be set. */
    required(name) {
        const value = this.#values.get(name);
        if (value === undefined) throw new Error(`the setting \`${name}\` is missing`);
        return value;
    }

    /** Refuses settings that the module does not have, so that a misspelt name is not silently without effect. */
    only(...names) {
        for (const name of this.#values.keys()) {
            if (names.includes(name)) continue;
            const there = names.length === 0 ? ": this module has none" : `; there are: ${names.join(", ")}`;
            throw new Error(`there is no setting \`${name}\`${there}`);
        }
    }
}

/** Takes the records to be stored. A record that is neither kept nor emitted is dropped, and its offset stays unused. */
export class Output {
    #section;
    #baseTimestamp;
    #bytes = null;
    #length = 0;
    #start = 0;
    #end = 0;

    /** @internal */
    constructor(section, baseTimestamp) {
        this.#section = section;
        this.#baseTimestamp = baseTimestamp;
    }

    /** Stores the record as it came. This is the fast way: neighbours are copied together. */
    keep(record) {
        if (record.start !== this.#end) {
            this.#endRun();
            this.#start = record.start;
        }
        this.#end = record.end;
    }

    /** Stores a changed record. Several may be made of one: then the broker numbers the records of the batch anew. */
    emit(record) {
        this.#endRun();
        const headers = record.headers.map(([name, value]) => [bytes(name), value]);
        let length = 1 + lengthOf(record.timestamp - this.#baseTimestamp) + lengthOf(record.offsetDelta);
        length += lengthOfBytes(record.key) + lengthOfBytes(record.value) + lengthOf(headers.length);
        for (const [name, value] of headers) length += lengthOfBytes(name) + lengthOfBytes(value);
        this.#room(length + NUMBER_BYTES_MAX);
        this.#number(length);
        this.#bytes[this.#length++] = 0;
        this.#number(record.timestamp - this.#baseTimestamp);
        this.#number(record.offsetDelta);
        this.#put(record.key);
        this.#put(record.value);
        this.#number(headers.length);
        for (const [name, value] of headers) {
            this.#put(name);
            this.#put(value);
        }
    }

    /** @internal */
    finish() {
        if (this.#bytes === null) return this.#section.subarray(this.#start, this.#end);
        this.#endRun();
        return this.#bytes.subarray(0, this.#length);
    }

    #endRun() {
        const length = this.#end - this.#start;
        if (length > 0) {
            this.#room(length);
            this.#bytes.set(this.#section.subarray(this.#start, this.#end), this.#length);
            this.#length += length;
        }
        this.#start = this.#end = 0;
    }

    #room(more) {
        const needed = this.#length + more;
        if (this.#bytes === null) this.#bytes = new Uint8Array(Math.max(this.#section.length, needed));
        if (needed <= this.#bytes.length) return;
        const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
        larger.set(this.#bytes.subarray(0, this.#length));
        this.#bytes = larger;
    }

    #number(value) {
        // Numbers of more than 31 bits can't be shifted.
        let folded = value < 0 ? -2 * value - 1 : 2 * value;
        while (folded >= 0x80) {
            this.#bytes[this.#length++] = (folded % 0x80) | 0x80;
            folded = Math.floor(folded / 0x80);
        }
        this.#bytes[this.#length++] = folded;
    }

    #put(part) {
        this.#number(part === null ? -1 : part.length);
        if (part === null) return;
        this.#bytes.set(part, this.#length);
        this.#length += part.length;
    }
}

/** Lines for the broker's log. The broker limits their length and number; in a native test they go to `log.lines`. */
export const log = {
    lines: [],
    write: (level, message) => log.lines.push([level, message]),
    debug: (message) => log.write("debug", message),
    info: (message) => log.write("info", message),
    warn: (message) => log.write("warn", message),
    error: (message) => log.write("error", message),
};

/** Bytes as text. Throws where they are not UTF-8. */
export function text(bytes) {
    let latin = "";
    for (let at = 0; at < bytes.length; at += CHARACTERS_AT_ONCE) {
        latin += String.fromCharCode.apply(null, bytes.subarray(at, at + CHARACTERS_AT_ONCE));
    }
    // A regular expression looks at text quicker than a loop, as it is not interpreted.
    return ASCII.test(latin) ? latin : decodeURIComponent(escape(latin));
}

/** Text as bytes, in UTF-8; bytes and null as they are. */
export function bytes(text) {
    if (text === null || text instanceof Uint8Array) return text;
    if (typeof text !== "string") throw new TypeError(`a key, a value or a header is text, a Uint8Array or null, and not ${typeof text}`);
    const latin = ASCII.test(text) ? text : unescape(encodeURIComponent(text));
    const bytes = new Uint8Array(latin.length);
    for (let at = 0; at < latin.length; at++) bytes[at] = latin.charCodeAt(at);
    return bytes;
}

/** What is exported to the broker: the functions of the contract, over the one guest of an instance. */
export function contract(Class) {
    let guest = null;
    const each = (batch, section, act) => {
        let index = null;
        try {
            guest.begin?.(batch);
            index = 0;
            for (const reader = new Reader(section, batch.baseTimestamp); !reader.isAtEnd(); index++) act(reader.next());
        } catch (error) {
            throw { message: describe(error), recordIndex: index };
        }
    };
    return {
        init(params) {
            try {
                guest = new Class(new Params(params));
            } catch (error) {
                throw describe(error);
            }
        },
        transform(batch, section) {
            const out = new Output(section, batch.baseTimestamp);
            each(batch, section, (record) => guest.transform(record, out));
            return out.finish();
        },
        partition(batch, section, partitionCount) {
            const partitions = [];
            each(batch, section, (record) => {
                const partition = guest.partition(record, partitionCount);
                if (!(Number.isInteger(partition) && partition >= 0 && partition < partitionCount)) {
                    throw new Error(`there is no partition ${partition} among ${partitionCount}`);
                }
                partitions.push(partition);
            });
            return partitions;
        },
    };
}

/** A mistake in the guest's code says what kind it is, and where, in the log; an error that the guest has thrown says what it says. */
function describe(error) {
    if (!(error instanceof Error)) return String(error);
    if (error.constructor === Error) return error.message;
    log.error(`${error}; ${String(error.stack).trim().replaceAll("\n", "; ")}`);
    return String(error);
}

class Reader {
    #bytes;
    #at = 0;
    #baseTimestamp;

    constructor(bytes, baseTimestamp) {
        this.#bytes = bytes;
        this.#baseTimestamp = baseTimestamp;
    }

    isAtEnd() {
        return this.#at >= this.#bytes.length;
    }

    next() {
        const start = this.#at;
        const length = this.#number();
        const end = this.#at + length;
        if (!(length > 0 && end <= this.#bytes.length)) throw new Error("these bytes are not records");
        this.#at += 1; // the attributes, of which no bit has a meaning
        const timestamp = this.#baseTimestamp + this.#number();
        const offsetDelta = this.#number();
        const key = this.#part();
        const value = this.#part();
        const record = new Record(this.#bytes, start, end, timestamp, offsetDelta, key, value, this.#at);
        this.#at = end;
        return record;
    }

    headers(at) {
        this.#at = at;
        const headers = [];
        for (let left = this.#number(); left > 0; left--) headers.push([text(this.#part()), this.#part()]);
        return headers;
    }

    #part() {
        const length = this.#number();
        if (length < 0) return null;
        const part = this.#bytes.subarray(this.#at, this.#at + length);
        if (part.length !== length) throw new Error("these bytes are not records");
        this.#at += length;
        return part;
    }

    #number() {
        const bytes = this.#bytes;
        const first = bytes[this.#at++];
        if (first < 0x80) return (first >>> 1) ^ -(first & 1);
        let folded = first & 0x7f;
        let unit = 0x80;
        for (let left = NUMBER_BYTES_MAX - 1; left > 0; left--, unit *= 0x80) {
            const byte = bytes[this.#at++];
            folded += (byte & 0x7f) * unit;
            if (byte < 0x80) return folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2;
        }
        throw new Error("these bytes are not records");
    }
}

function readHeaders(section, at) {
    return new Reader(section, 0).headers(at);
}

function lengthOf(value) {
    let length = 1;
    for (let folded = value < 0 ? -2 * value - 1 : 2 * value; folded >= 0x80; folded /= 0x80) length++;
    return length;
}

function lengthOfBytes(part) {
    return part === null ? 1 : lengthOf(part.length) + part.length;
}

const ASCII = /^[\x00-\x7f]*$/;

/** The most bytes of a number of 64 bits. */
const NUMBER_BYTES_MAX = 10;

/** More arguments than this may be too many for a call. */
const CHARACTERS_AT_ONCE = 1024;
