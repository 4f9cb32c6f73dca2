import assert from "node:assert/strict";
import { test } from "node:test";
import { Guest, Output, Params, Record, bytes, contract, log, text } from "../millpond-guest.js";
import { BASE_TIMESTAMP, place, records, run, section } from "../testing.js";

class Keep extends Guest {
    transform(record, out) {
        out.keep(record);
    }
}

class Again extends Guest {
    transform(record, out) {
        out.emit(record);
    }
}

const SOME = [
    { key: "k", value: "v", headers: [["a", "1"], ["a", null], ["größe", "ü"]] },
    { value: null, timestamp: BASE_TIMESTAMP - 2 ** 40 },
    { key: "", value: "", timestamp: 2 * BASE_TIMESTAMP },
    { key: new Uint8Array([0xff, 0]), value: "x".repeat(70_000), timestamp: 0 },
    ...Array.from({ length: 9000 }, (_, index) => ({ value: `${index}` })),
];

test("the bytes are Kafka's", () => {
    const encoded = [...section([{ key: "k", value: "va", headers: [["h", null]], timestamp: BASE_TIMESTAMP + 300 }])];
    assert.deepEqual(encoded, [26, 0, 0xd8, 4, 0, 2, 0x6b, 4, 0x76, 0x61, 2, 2, 0x68, 1]);
});

test("what is written is read again, kept or emitted", () => {
    const before = records(section(SOME));
    assert.deepEqual(before[0], { offsetDelta: 0, timestamp: BASE_TIMESTAMP, key: "k", value: "v", headers: [["a", "1"], ["a", null], ["größe", "ü"]] });
    assert.equal(before[1].timestamp, BASE_TIMESTAMP - 2 ** 40);
    assert.deepEqual([before[3].key, before[8000].offsetDelta], [new Uint8Array([0xff, 0]), 8000]);
    assert.deepEqual(run(Keep, {}, SOME), before);
    assert.deepEqual(run(Again, {}, SOME), before);
});

test("a batch that is kept as a whole is not copied", () => {
    const guest = contract(Keep);
    guest.init([]);
    const all = section(SOME);
    assert.equal(guest.transform({ baseTimestamp: BASE_TIMESTAMP }, all).buffer, all.buffer);
});

test("runs of kept records lie between emitted ones", () => {
    class Odd {
        transform(record, out) {
            const number = Number(record.text());
            if (number % 3 === 0) out.keep(record);
            if (number % 3 === 1) out.emit(record.with({ value: `${number}!`, key: new Uint8Array([1]) }));
        }
    }
    const values = run(Odd, {}, [0, 1, 2, 3, 3, 4].map((number) => ({ value: `${number}` }))).map(({ value }) => value);
    assert.deepEqual(values, ["0", "1!", "3", "3", "4!"]);
});

test("an error names its record, and a mistake is logged with its place", () => {
    class Fails {
        transform(record) {
            if (record.text() === "bad") throw new Error("it is bad");
            if (record.text() === "worse") record.none();
        }
    }
    assert.throws(() => run(Fails, {}, [{ value: "fine" }, { value: "bad" }]), { message: "record 1: it is bad" });
    assert.throws(() => run(Fails, {}, [{ value: "worse" }]), /record 0: TypeError: record.none is not a function/);
    assert.match(log.lines.at(-1)[1], /TypeError.*records.test.js/);
});

test("bytes that are no records are refused and never read over their end", () => {
    const whole = section(SOME.slice(0, 3));
    const read = (bytes) => records(bytes).length;
    for (let length = 1; length < whole.length; length++) {
        const cut = whole.slice(0, length);
        try {
            assert.ok(read(cut) < 3);
        } catch (error) {
            assert.equal(error.message, "these bytes are not records");
        }
    }
});

test("settings have types, and a misspelt one is refused", () => {
    const params = new Params([["n", "1"], ["n", "2.5"], ["b", "true"], ["bad", "ten"], ["empty", " "]]);
    assert.deepEqual([params.number("n", 0), params.number("m", 7), params.boolean("b", false), params.string("s", "x")], [2.5, 7, true, "x"]);
    assert.throws(() => params.number("bad", 0), { message: "the setting `bad` can't be `ten`: it is not a number" });
    assert.throws(() => params.number("empty", 0), /can't be ` `/);
    assert.throws(() => params.boolean("bad", false), { message: "the setting `bad` can't be `ten`: it is true or false" });
    assert.throws(() => params.required("none"), { message: "the setting `none` is missing" });
    assert.throws(() => params.only("n", "b"), { message: "there is no setting `bad`; there are: n, b" });
    assert.throws(() => params.only(), { message: "there is no setting `n`: this module has none" });
});

test("text is UTF-8, both ways", () => {
    for (const sample of ["", "plain", "größe", "\u{1f321}", "x".repeat(5000) + "ß"]) assert.equal(text(bytes(sample)), sample);
    assert.throws(() => text(new Uint8Array([0xff])), URIError);
});

test("what can't be stored is a mistake of the guest's", () => {
    for (const wrong of [{ value: 5 }, { key: undefined ?? {} }, { headers: [["h", 1]] }, { timestamp: 1.5 }, { timestamp: "now" }]) {
        class Wrong {
            transform(record, out) {
                out.emit(record.with(wrong));
            }
        }
        assert.throws(() => run(Wrong, {}, [{ value: "x" }]), /record 0: TypeError: /);
    }
    class Begins {
        begin() {
            throw new Error("not today");
        }
        partition = (record) => Number(record.text());
    }
    assert.throws(() => place(Begins, {}, [{ value: "0" }], 2), { message: "not today" });
    delete Begins.prototype.begin;
    for (const value of ["2", "-1", "0.5", "x"]) assert.throws(() => place(Begins, {}, [{ value }], 2), /record 0: there is no partition/);
});

test("a partitioner places each record", () => {
    class ByLength {
        partition(record, count) {
            return record.value.length % count;
        }
    }
    assert.deepEqual(place(ByLength, {}, [{ value: "a" }, { value: "abcde" }], 3), [1, 2]);
    assert.ok(new Output(new Uint8Array(0), 0).finish().length === 0 && Record.name === "Record");
});
