"""A partitioner for tests: places a record by the length of its value, and asks for what no guest gets where the value says so."""

import random
import time

from millpond_guest import partitioner


@partitioner
class Probe:
    def __init__(self, params):
        params.only()

    def begin(self, batch):
        print(f"{batch.record_count} records of {batch.topic}")

    def partition(self, record, partition_count):
        match record.value:
            case b"time":
                return int(time.time())
            case b"random":
                return int(random.random())
            case b"file":
                return len(open("/etc/passwd").read())
            case b"import":
                import csv  # not at the top of a file

                return len(csv.__doc__)
            case b"range":
                return partition_count
            case b"mistake":
                return record.none()
        return len(record.value) % partition_count
