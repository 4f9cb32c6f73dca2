import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { state } from "../sdk-js/millpond-guest.js";
import { Deriving, grantState } from "../sdk-js/testing.js";
import Alarms from "./alarms.js";

const TARGETS = ["alarms", "readings"];

const reading = (device, celsius) => ({ key: device, value: `{"temperature":${celsius}}` });

beforeEach(() => grantState(4 * (64 + 8 + 1)));

test("an alarm is raised, counted and cleared", () => {
    const alarms = new Deriving(Alarms, {}, TARGETS);
    const shown = (written) => written.map(([topic, { key, headers }]) => [topic, key, headers]);
    assert.deepEqual(shown(alarms.run([reading("a", 81), reading("b", 20), reading("a", 82)])), [
        ["alarms", "a", [["count", "1"]]],
        ["alarms", "a", [["count", "2"]]],
        ["readings", "b", []],
    ]);
    assert.deepEqual(shown(alarms.run([reading("a", 80)])), [["alarms", "a", [["cleared", "2"]]], ["readings", "a", []]]);
    assert.equal(state.get("a"), null);
});

test("a question is answered a page at a time", () => {
    const alarms = new Deriving(Alarms, { page: "2" }, TARGETS);
    alarms.run([..."acbd"].map((device) => reading(device, 90)));
    const answer = alarms.run([{ value: "" }, { value: "", headers: [["after", "b"]] }, { value: "c" }]);
    assert.deepEqual(answer.map(([, { key }]) => key), ["a", "b", "c", "d", "c"]);
});

test("a batch that fails changes nothing", () => {
    const alarms = new Deriving(Alarms, {}, TARGETS);
    alarms.run([reading("a", 90)]);
    assert.throws(() => alarms.run([reading("a", 90), { key: "a", value: "[1]" }]), { message: "record 1: the value is not a JSON object" });
    assert.throws(() => alarms.run([..."abcde"].map((device) => reading(device, 90))), /record 4: the state is full/);
    assert.deepEqual([...state.scan()].map(([key]) => [String.fromCharCode(...key), state.getInteger(key)]), [["a", 1]]);
});

test("it needs two topics", () => {
    assert.throws(() => new Deriving(Alarms, {}, ["alarms"]), /name two topics/);
});
