// Write modules that run inside the Millpond broker: transforms, which change records before they are stored, partitioners, which place
// them, and modules that derive topics from others.
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
// A partitioner has `partition(record, partitionCount)` in place of `transform`. A module that makes records of other topics has `derive`, and
// may remember something (state.js):
//
//     import { Guest, state } from "./millpond-guest.js";
//
//     export default class Count extends Guest {
//         constructor(params, targets) {
//             super();
//             if (targets.length !== 2) throw new Error("name two topics");
//         }
//
//         derive(record, out) {
//             const count = state.getInteger(record.key) + 1;
//             state.putInteger(record.key, count);
//             out.emit(count % 1000 === 0 ? 1 : 0, record.with({ value: `${count}` }));
//         }
//     }
//
// An error that is thrown fails the batch at this record, and
// its message is shown to whoever sent it. There is no clock, no random number, no file and no network; memory, time and output are limited.
// What a guest remembers between batches is a cache at most, but for its state: there may be several instances, and each may be replaced at
// any time.
//
//  one record, numbers are zig-zag varints of seven bits in a byte, the lowest first (KIP-98)
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//  | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
//  |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//           |<------------------------------ length ------------------------------------------------------>|
//  a length of -1 is a key or a value that is not there; a header is name length, name, value length, value

import { bytes, text } from "./text.js";

export { state } from "./state.js";
export { bytes, text };

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

/**
 * Takes the records for topics, which are counted from 0 in the order in which they were named. The broker chooses the partition by the key.
 */
export class Outputs {
    #outputs;

    /** @internal */
    constructor(section, baseTimestamp, targetCount) {
        this.#outputs = Array.from({ length: targetCount }, () => new Output(section, baseTimestamp));
    }

    /** Writes the record as it came to a topic. */
    keep(target, record) {
        this.#to(target).keep(record);
    }

    /** Writes a changed record to a topic. */
    emit(target, record) {
        this.#to(target).emit(record);
    }

    /** @internal */
    finish() {
        return this.#outputs.map((output, target) => [target, output.finish()]).filter(([, section]) => section.length > 0);
    }

    #to(target) {
        const output = this.#outputs[target];
        if (output === undefined) throw new RangeError(`there is no target ${target}: ${this.#outputs.length} were named`);
        return output;
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

/** What is exported to the broker: the functions of the contract, over the one guest of an instance. */
export function contract(Class) {
    let guest = null;
    let targetCount = 0;
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
        init(params, ...targets) {
            targetCount = targets[0]?.length ?? 0;
            try {
                guest = new Class(new Params(params), ...targets);
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
        derive(batch, section) {
            const out = new Outputs(section, batch.baseTimestamp, targetCount);
            each(batch, section, (record) => guest.derive(record, out));
            return out.finish();
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

/** The most bytes of a number of 64 bits. */
const NUMBER_BYTES_MAX = 10;
