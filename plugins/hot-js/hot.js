// Keeps the readings that are hotter than a limit, and marks them with a header.
//
// | setting | default | meaning |
// |---|---|---|
// | `limit` | `80` | a reading above this is kept |
// | `field` | `temperature` | the field of the JSON object that holds the reading |

import { Guest } from "../sdk-js/millpond-guest.js";

export default class Hot extends Guest {
    constructor(params) {
        super();
        params.only("limit", "field");
        this.limit = params.number("limit", 80);
        this.field = params.string("field", "temperature");
    }

    transform(record, out) {
        if (record.value === null) return out.keep(record); // it deletes its key
        const reading = record.json()[this.field];
        if (typeof reading === "number" && reading > this.limit) {
            out.emit(record.with({ headers: [...record.headers, ["alert", "hot"]] }));
        } // neither kept nor emitted: dropped
    }
}
