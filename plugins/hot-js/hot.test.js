import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../sdk-js/testing.js";
import Hot from "./hot.js";

test("hot readings are kept and marked", () => {
    const stored = run(Hot, {}, [{ value: '{"temperature":81}' }, { value: '{"temperature":80}' }, { value: '{"temperature":"hot"}' }]);
    assert.deepEqual(stored.map(({ value, headers }) => [value, headers]), [['{"temperature":81}', [["alert", "hot"]]]]);
});

test("settings choose limit and field", () => {
    assert.equal(run(Hot, { limit: "20", field: "celsius" }, [{ value: '{"celsius":20.5}' }]).length, 1);
    assert.throws(() => run(Hot, { limit: "ten" }, []), /the setting `limit` can't be `ten`/);
});

test("what is no object fails its batch", () => {
    assert.throws(() => run(Hot, {}, [{ value: "{}" }, { value: "[1]" }]), { message: "record 1: the value is not a JSON object" });
});
