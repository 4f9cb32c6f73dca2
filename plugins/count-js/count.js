// Numbers the records of each key: 1, 2, 3 and so on, in a header. Whoever reads them sees at once whether one is missing, or came twice.
//
// | setting | default | meaning |
// |---|---|---|
// | `header` | `count` | the name of the header, which takes the place of one that is there |
//
// It keeps the number of each key, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`.

import { Guest, state } from "../sdk-js/millpond-guest.js";

export default class Count extends Guest {
    constructor(params) {
        super();
        params.only("header");
        this.header = params.string("header", "count");
    }

    transform(record, out) {
        const key = record.key ?? "";
        const count = state.getInteger(key) + 1;
        state.putInteger(key, count);
        const others = record.headers.filter(([name]) => name !== this.header);
        out.emit(record.with({ headers: [...others, [this.header, `${count}`]] }));
    }
}
