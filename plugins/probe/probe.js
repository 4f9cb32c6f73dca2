// A partitioner for tests: places a record by the length of its value, and asks for what no guest gets where the value says so.

import { Guest } from "../sdk-js/millpond-guest.js";

export default class Probe extends Guest {
    constructor(params) {
        super();
        params.only();
    }

    begin(batch) {
        console.log(`${batch.recordCount} records of ${batch.topic}`);
    }

    partition(record, partitionCount) {
        switch (record.text()) {
            case "time": return Date.now();
            case "date": return new Date().getTime();
            case "random": return Math.random();
            case "range": return partitionCount;
            case "mistake": return record.none();
            default: return record.value.length % partitionCount;
        }
    }
}
