// Derives topics in a world without state, for tests: a record goes to the target that its value names, and asks for the state where it says so.

import { Guest, state } from "../sdk-js/millpond-guest.js";

export default class Stateless extends Guest {
    derive(record, out) {
        if (record.text() === "state") state.put("a", "b");
        out.keep(Number(record.text()), record);
    }
}
