// Alarms of devices: a reading above a limit raises the alarm of its device, which is the record's key, and one that is not clears it.
// Attached with `--into ALARMS,READINGS --state-bytes BYTES`.
//
// | setting | default | meaning |
// |---|---|---|
// | `limit` | `80` | a reading above this is an alarm |
// | `field` | `temperature` | the field of the JSON object that holds the reading |
// | `page` | `100` | how many alarms answer a question, at most |
//
// A record without a key is a question for the alarms that are raised, of devices that begin with its value and come behind its header `after`.

import { Guest, state } from "../sdk-js/millpond-guest.js";

const [ALARMS, READINGS] = [0, 1];

export default class Alarms extends Guest {
    constructor(params, targets) {
        super();
        params.only("limit", "field", "page");
        this.limit = params.number("limit", 80);
        this.field = params.string("field", "temperature");
        this.page = params.number("page", 100);
        if (targets.length !== 2) throw new Error("name two topics: one for the alarms, one for the readings");
    }

    derive(record, out) {
        if (record.key === null) return this.answer(record, out);
        if (record.value !== null) return this.reading(record, out);
        state.delete(record.key); // the device is gone
        out.keep(ALARMS, record);
        out.keep(READINGS, record);
    }

    reading(record, out) {
        const reading = record.json()[this.field];
        const count = state.getInteger(record.key);
        if (typeof reading === "number" && reading > this.limit) {
            state.putInteger(record.key, count + 1);
            out.emit(ALARMS, record.with({ headers: [...record.headers, ["count", `${count + 1}`]] }));
            return;
        }
        if (count > 0) {
            state.delete(record.key);
            out.emit(ALARMS, record.with({ value: null, headers: [["cleared", `${count}`]] }));
        }
        out.keep(READINGS, record);
    }

    answer(question, out) {
        const [prefix, after] = [question.value ?? "", question.header("after")];
        for (const [device] of state.scan({ prefix, after, limit: this.page })) {
            out.emit(ALARMS, question.with({ key: device, value: `${state.getInteger(device)}`, headers: [] }));
        }
    }
}
