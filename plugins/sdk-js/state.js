// What a module keeps between batches: keys and values, for an attachment with derived topics that was granted some bytes (`--state-bytes`).
//
//     const count = state.getInteger(record.key) + 1;
//     state.putInteger(record.key, count);
//     for (const [key, value] of state.scan({ prefix: "pump-", after: "pump-3", limit: 10 })) { ... }
//
// There is one state for each partition of the source. It changes together with the position in the source and with what was written: after
// any crash, all of it is there or nothing. What was changed in a batch on which the module failed is taken back.
//
// It is there in modules of the worlds `stateful-derive` and `stateful-transform`, while a batch is processed, and not in a constructor. In a
// native test it is in memory, see `grantState` in testing.js. Keys and values are a Uint8Array; text may stand for them.

import { bytes } from "./text.js";

const missing = () => {
    throw new Error("the module has no state: build it for the world `stateful-derive` or `stateful-transform`");
};

export const state = {
    /** Keeps the entries; the module's build puts the broker's in its place, a native test one in memory. */
    store: { get: missing, put: missing, delete: missing, scan: missing },

    /** The value of a key, or null. */
    get: (key) => state.store.get(some(key)) ?? null,

    /**
     * Gives a key a value. Throws where the key is longer than 1 KiB, or the state would have more bytes than were granted: those of all keys
     * and values, and 64 for each. Nothing is changed then.
     */
    put(key, value) {
        try {
            state.store.put(some(key), some(value));
        } catch (refused) {
            // The broker's words come as a text.
            throw typeof refused === "string" ? new Error(refused) : refused;
        }
    },

    /** Removes a key, if it is there. */
    delete: (key) => state.store.delete(some(key)),

    /**
     * The entries [key, value] whose key begins with `prefix` and comes behind `after`, in bytewise order of the keys: all of them, or `limit`
     * at most. They are fetched a page at a time, and the state may be changed meanwhile: what is changed behind the page is seen.
     */
    *scan({ prefix = "", after = null, limit = Infinity } = {}) {
        prefix = some(prefix);
        after = bytes(after);
        while (limit > 0) {
            const page = state.store.scan(prefix, after, Math.min(limit, PAGE_ENTRIES));
            if (page.length === 0) return;
            yield* page;
            after = page.at(-1)[0];
            limit -= page.length;
        }
    },

    /** A number that `putInteger` has put; 0 where there is none. */
    getInteger(key) {
        const view = eightBytes(state.get(key));
        return view === null ? 0 : view.getUint32(0) * 2 ** 32 + view.getUint32(4);
    },

    /** Gives a key a whole number from 0 to 2 ** 53 - 1: eight bytes, the highest first. */
    putInteger(key, number) {
        if (!Number.isSafeInteger(number) || number < 0) throw new RangeError(`${number} is no whole number from 0 to 2 ** 53 - 1`);
        const view = new DataView(new ArrayBuffer(8));
        view.setUint32(0, Math.floor(number / 2 ** 32));
        view.setUint32(4, number % 2 ** 32);
        state.put(key, new Uint8Array(view.buffer));
    },

    /** A number that `putNumber` has put, or null. */
    getNumber: (key) => eightBytes(state.get(key))?.getFloat64(0) ?? null,

    /** Gives a key a number: eight bytes, the highest first. */
    putNumber(key, number) {
        const view = new DataView(new ArrayBuffer(8));
        view.setFloat64(0, number);
        state.put(key, new Uint8Array(view.buffer));
    },
};

function some(part) {
    if (part === null) throw new TypeError("a key or a value is text or a Uint8Array, and not null");
    return bytes(part);
}

function eightBytes(value) {
    return value?.length === 8 ? new DataView(value.buffer, value.byteOffset, 8) : null;
}

/** Entries that are asked for at once. */
const PAGE_ENTRIES = 256;
