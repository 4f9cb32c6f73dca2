// Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out.
//
//     import { run } from "./testing.js";
//     assert.deepEqual(run(Hot, { limit: "80" }, [{ value: '{"temperature":81}' }])[0].headers, [["alert", "hot"]]);

import { contract, Output, Record, text, bytes } from "./millpond-guest.js";

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
    return records(refusing(() => guest.transform(info(input), section(input))));
}

/** Starts a partitioner with these settings and asks it for the partitions of records. */
export function place(Class, params, input, partitionCount) {
    const guest = start(Class, params);
    return refusing(() => guest.partition(info(input), section(input), partitionCount));
}

function info(input) {
    return { topic: "test", partition: 0, baseTimestamp: BASE_TIMESTAMP, recordCount: input.length };
}

function start(Class, params) {
    const guest = contract(Class);
    refusing(() => guest.init(Object.entries(params)));
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

export { bytes };
