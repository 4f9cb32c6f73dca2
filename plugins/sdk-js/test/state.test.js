import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { bytes, state, text } from "../millpond-guest.js";
import { BASE_TIMESTAMP, Deriving, grantState, run } from "../testing.js";

beforeEach(() => grantState());

const keys = (options) => [...state.scan(options)].map(([key]) => text(key));

test("entries come in order over any number of pages", () => {
    const all = Array.from({ length: 700 }, (_, number) => `a${String(number).padStart(4, "0")}`);
    for (const key of [...all].reverse()) state.put(key, "x");
    state.put(bytes("b"), new Uint8Array(0));
    assert.deepEqual(keys({ prefix: "a" }), all);
    assert.deepEqual(keys(), [...all, "b"]);
    assert.deepEqual(keys({ prefix: "a", after: "a0100", limit: 300 }), all.slice(101, 401));
    assert.deepEqual([keys({ prefix: "a", limit: 0 }), keys({ prefix: "c" }), keys({ after: "b" })], [[], [], []]);
    const pages = state.scan({ prefix: "a" });
    pages.next();
    state.delete("a0699"); // behind the page
    assert.equal([...pages].length, 698);
});

test("the order is that of the bytes", () => {
    for (const key of [[0xff], [0x0f, 1], [0xf0], [], [0x0f]]) state.put(new Uint8Array(key), "");
    assert.deepEqual([...state.scan()].map(([key]) => [...key]), [[], [0x0f], [0x0f, 1], [0xf0], [0xff]]);
});

test("what is put is there until it is deleted, and is nobody else's", () => {
    const value = bytes("ü");
    state.put("größe", value);
    value[0] = 0;
    assert.deepEqual([state.get(bytes("größe")), state.get("none")], [bytes("ü"), null]);
    state.delete("none");
    state.delete("größe");
    assert.equal(state.get("größe"), null);
    for (const wrong of [() => state.get(5), () => state.get(null), () => state.put("a", null), () => state.put("a", 1), () => keys({ prefix: null })]) {
        assert.throws(wrong, TypeError);
    }
});

test("numbers have eight bytes, the highest first", () => {
    state.putInteger("i", 2 ** 40 + 258);
    state.putNumber("f", -0.5);
    assert.deepEqual([[...state.get("i")], state.getInteger("i"), state.getInteger("none")], [[0, 0, 1, 0, 0, 0, 1, 2], 2 ** 40 + 258, 0]);
    assert.deepEqual([[...state.get("f")], state.getNumber("f"), state.getNumber("none")], [[0xbf, 0xe0, 0, 0, 0, 0, 0, 0], -0.5, null]);
    state.putInteger("i", Number.MAX_SAFE_INTEGER);
    assert.equal(state.getInteger("i"), Number.MAX_SAFE_INTEGER);
    for (const wrong of [-1, 0.5, 2 ** 53, NaN, "1"]) assert.throws(() => state.putInteger("i", wrong), RangeError);
    state.put("i", "short");
    assert.deepEqual([state.getInteger("i"), state.getNumber("i")], [0, null]);
});

test("a state that is full refuses what would make it larger", () => {
    grantState(2 * (64 + 1 + 8));
    state.putInteger("a", 1);
    state.putInteger("b", 1);
    assert.throws(() => state.put("c", ""), { message: "the state is full: it would have 211 bytes, and 146 are granted (`--state-bytes`)" });
    assert.throws(() => state.put(new Uint8Array(1025), ""), { message: "a key of 1025 bytes is too long, 1024 are allowed" });
    state.putInteger("a", 2);
    assert.deepEqual([state.getInteger("a"), state.get("c")], [2, null]);
});

test("the broker's words are an error", () => {
    state.store = { put: () => { throw "the state is full"; } };
    assert.throws(() => state.put("a", ""), { constructor: Error, message: "the state is full" });
});

// Writes a record to both topics, the second time with how often it saw the key.
class Twice {
    constructor(params, targets) {
        params.only();
        if (targets.map(({ name }) => name).join() !== "one,two") throw new Error("name two topics");
    }

    derive(record, out) {
        const count = state.getInteger(record.key) + 1;
        state.putInteger(record.key, count);
        out.keep(0, record);
        if (record.text() === "bad") throw new Error("it is bad");
        out.emit(Number(record.text() || 1), record.with({ key: `${count}`, value: null }));
    }
}

test("records go to the topics that the module chooses", () => {
    const offsets = [];
    class Watched extends Twice {
        begin(batch) {
            offsets.push(batch.baseOffset);
        }
    }
    const twice = new Deriving(Watched, {}, ["one", "two"]);
    const first = twice.run([{ key: "a" }, { key: "b", timestamp: 5, headers: [["h", null]] }, { key: "a", value: "0" }]);
    const shown = first.map(([topic, { key }]) => topic + key);
    assert.deepEqual(shown, ["onea", "oneb", "onea", "one2", "two1", "two1"]);
    assert.deepEqual([first[1][1].timestamp, first[5][1].timestamp, first[5][1].headers], [5, 5, [["h", null]]]);
    const second = twice.run([{ key: "a" }])[1];
    assert.deepEqual(second, ["two", { offsetDelta: 0, timestamp: BASE_TIMESTAMP, key: "3", value: null, headers: [] }]);
    assert.deepEqual(offsets, [0, 3]);
});

test("a batch that fails writes nothing and changes nothing", () => {
    const twice = new Deriving(Twice, {}, ["one", "two"]);
    twice.run([{ key: "a" }]);
    for (const [value, words] of [["bad", /^record 1: it is bad$/], ["2", /record 1: RangeError: there is no target 2: 2 were named/], ["-1", /no target -1/], ["0.5", /no target 0.5/]]) {
        assert.throws(() => twice.run([{ key: "a" }, { key: "b", value }]), { message: words });
    }
    assert.deepEqual([...state.scan()].map(([key]) => [text(key), state.getInteger(key)]), [["a", 1]]);
    assert.throws(() => new Deriving(Twice, {}, ["one"]), { message: "name two topics" });
});

test("a transform keeps state too", () => {
    class Once {
        transform(record, out) {
            if (state.get(record.key) === null) {
                state.put(record.key, "");
                out.keep(record);
            }
            if (record.text() === "bad") throw new Error("it is bad");
        }
    }
    const seen = (...keys) => run(Once, {}, keys.map((key) => ({ key }))).map(({ key }) => key);
    assert.deepEqual([seen("a", "b", "a"), seen("b", "c")], [["a", "b"], ["c"]]);
    assert.throws(() => run(Once, {}, [{ key: "d" }, { key: "e", value: "bad" }]), /it is bad/);
    assert.deepEqual(seen("d", "a"), ["d"]);
});
