// Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out.
//
//     import { run } from "./testing.js";
//     assert.deepEqual(run(Hot, { limit: "80" }, [{ value: '{"temperature":81}' }])[0].headers, [["alert", "hot"]]);
//
// A module that keeps state has one in memory, which `grantState` begins anew:
//
//     grantState(1 << 20);
//     const count = new Deriving(Count, {}, ["all", "thousandths"]);
//     assert.equal(count.run([{ key: "a" }, { key: "a" }])[1][1].value, "2");

import { contract, Output, Record, state, text, bytes } from "./millpond-guest.js";

/** The time of the first record that has none, 2026-01-01 UTC. */
export const BASE_TIMESTAMP = 1_767_225_600_000;

/** The records section of some records: `{ key, value, headers, timestamp }`, each of them optional, text or bytes. */
export function section(records) {
    const out = new Output(new Uint8Array(0), BASE_TIMESTAMP);
    records.forEach(({ key = null, value = null, headers = [], timestamp = BASE_TIMESTAMP }, offset) => {
        out.emit(new Record(null, 0, 0, timestamp, offset, null, null, 0).with({ key, value, headers }));
    });
    return out.finish();
}

/** The records of a section, with text in place of bytes where they are UTF-8. */
export function records(section) {
    const found = [];
    const plain = (part) => {
        try {
            return part === null ? null : text(part);
        } catch {
            return part;
        }
    };
    class Collect {
        transform(record) {
            const headers = record.headers.map(([name, value]) => [name, plain(value)]);
            const { offsetDelta, timestamp } = record;
            found.push({ offsetDelta, timestamp, key: plain(record.key), value: plain(record.value), headers });
        }
    }
    const collect = contract(Collect);
    collect.init([]);
    collect.transform({ baseTimestamp: BASE_TIMESTAMP }, section);
    return found;
}

/** Starts a transform with these settings and passes records through it. Throws an Error with the text with which it refused or failed. */
export function run(Class, params, input) {
    const guest = start(Class, params);
    return records(takenBack(() => refusing(() => guest.transform(info(input), section(input)))));
}

/** Starts a partitioner with these settings and asks it for the partitions of records. */
export function place(Class, params, input, partitionCount) {
    const guest = start(Class, params);
    return refusing(() => guest.partition(info(input), section(input), partitionCount));
}

/** A module that derives topics, with what it remembers from batch to batch: the state, and whatever it keeps in memory. */
export class Deriving {
    #guest;
    #targets;
    #nextOffset = 0;

    /** Starts it with these settings and the names of its targets. Throws an Error with the text with which it refused. */
    constructor(Class, params, targets) {
        this.#targets = targets;
        this.#guest = start(Class, params, targets.map((name) => ({ name, partitionCount: 4 })));
    }

    /**
     * Passes records through it. Gives those that it has written, each with the name of its topic: [["alarms", { ... }]], those of one topic in
     * order. Throws an Error with the text with which it failed; what it has changed in its state is taken back then.
     */
    run(input) {
        const batch = { ...info(input), baseOffset: this.#nextOffset };
        this.#nextOffset += input.length;
        const sections = takenBack(() => refusing(() => this.#guest.derive(batch, section(input))));
        return sections.flatMap(([target, written]) => records(written).map((record) => [this.#targets[target], record]));
    }
}

/** Begins with an empty state, which is granted so many bytes, counted as the broker does. Without a number it has no limit. */
export function grantState(bytesMax = Infinity) {
    state.store = new Memory(bytesMax);
}

/** What the broker does with a state, in memory. */
class Memory {
    /** Keys and values by their keys in hexadecimal digits, which have the order of the bytes. */
    entries = new Map();
    #bytesMax;

    constructor(bytesMax) {
        this.#bytesMax = bytesMax;
    }

    get(key) {
        return this.entries.get(hex(key))?.[1].slice() ?? null;
    }

    put(key, value) {
        if (key.length > KEY_BYTES_MAX) throw new Error(`a key of ${key.length} bytes is too long, ${KEY_BYTES_MAX} are allowed`);
        const size = ([key, value]) => key.length + value.length + ENTRY_OVERHEAD_BYTES;
        const before = [...this.entries.values()].reduce((sum, entry) => sum + size(entry), 0);
        const replaced = this.entries.get(hex(key));
        const after = before - (replaced ? size(replaced) : 0) + size([key, value]);
        if (after > this.#bytesMax && after > before) {
            throw new Error(`the state is full: it would have ${after} bytes, and ${this.#bytesMax} are granted (\`--state-bytes\`)`);
        }
        this.entries.set(hex(key), [key.slice(), value.slice()]);
    }

    delete(key) {
        this.entries.delete(hex(key));
    }

    scan(prefix, after, limit) {
        const [start, behind] = [hex(prefix), after === null ? null : hex(after)];
        const found = [...this.entries.keys()].filter((key) => key.startsWith(start) && (behind === null || key > behind)).sort();
        return found.slice(0, limit).map((key) => this.entries.get(key).map((part) => part.slice()));
    }
}

function hex(key) {
    return Array.from(key, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What is changed in the state is taken back if this throws. */
function takenBack(act) {
    const before = new Map(state.store.entries);
    try {
        return act();
    } catch (error) {
        state.store.entries = before;
        throw error;
    }
}

function info(input) {
    return { topic: "test", partition: 0, baseTimestamp: BASE_TIMESTAMP, recordCount: input.length };
}

function start(Class, params, ...targets) {
    const guest = contract(Class);
    refusing(() => guest.init(Object.entries(params), ...targets));
    return guest;
}

function refusing(act) {
    try {
        return act();
    } catch (error) {
        if (error instanceof Error) throw error;
        if (typeof error === "string") throw new Error(error);
        throw new Error(error.recordIndex === null ? error.message : `record ${error.recordIndex}: ${error.message}`);
    }
}

const KEY_BYTES_MAX = 1024;
const ENTRY_OVERHEAD_BYTES = 64;

grantState();

export { bytes };
