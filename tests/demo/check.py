"""What must hold for every record that is read back. It is the demo's point, so one exception fails it."""

import json

from replay import stored


class CheckFailed(Exception):
    """A promise was broken."""


class ReadBack:
    """Looks at records as they are consumed."""

    def __init__(self, hosts, partitions):
        self.hosts = hosts
        self.by_partition = [0] * partitions
        self.partition_of = {}
        self.next_offset = [0] * partitions
        self.by_device = {}

    @property
    def records(self):
        return sum(self.by_partition)

    def see(self, text):
        """Checks one line of `millpond consume -o jsonl`."""
        record = json.loads(text)
        partition, offset = record["partition"], record["offset"]
        where = f"partition {partition}, offset {offset}"
        if offset < self.next_offset[partition]:
            raise CheckFailed(f"{where}: the offset is not behind the one before, {self.next_offset[partition] - 1}")
        self.next_offset[partition] = offset + 1
        self.by_partition[partition] += 1
        value = stored(record.get("value"))
        if not isinstance(value, dict):
            return
        if value.get("state") == "idle":
            raise CheckFailed(f"{where}: the reading of an idle device was stored: {text.strip()}")
        if value.get("host") in self.hosts:
            raise CheckFailed(f"{where}: the host name `{value['host']}` was stored: {text.strip()}")
        device = value.get("device")
        if not isinstance(device, str):
            return
        if self.partition_of.setdefault(device, partition) != partition:
            raise CheckFailed(f"{where}: `{device}` was in partition {self.partition_of[device]} before")
        self.by_device[device] = self.by_device.get(device, 0) + 1

    def summary(self):
        """What was seen, a record for each partition and for each device."""
        partitions = [{"key": f"partition {number}", "value": {"records": count}} for number, count in enumerate(self.by_partition)]
        devices = sorted(self.by_device.items())
        return partitions + [{"key": name, "value": {"records": count, "in": self.partition_of[name]}} for name, count in devices]


def check_counts(sent, idle, transform, read_back):
    """The broker's own counts against the producer's and against what was read.

    `idle` is None where the file is not ours, and `read_back` where not all was read.
    """
    came, kept, dropped = transform["records_in"], transform["records_out"], transform["records_dropped"]
    if came != sent:
        raise CheckFailed(f"{sent} records were acknowledged, and the transform was given {came}")
    if came != kept + dropped:
        raise CheckFailed(f"of {came} records the transform kept {kept} and dropped {dropped}")
    if idle is not None and dropped != idle:
        raise CheckFailed(f"{idle} readings were of idle devices, and the transform dropped {dropped}")
    if read_back is not None and read_back != kept:
        raise CheckFailed(f"the transform kept {kept} records, and {read_back} were read back")


def check_summary(summary, sent, seen):
    """The records that a Python program sent against those that a Node.js program read."""
    if sent != len(summary):
        raise CheckFailed(f"{len(summary)} records were given to the Python program, and {sent} were acknowledged")
    by_key = sorted(summary, key=lambda record: record["key"])
    read = sorted(seen, key=lambda record: record["key"])
    if [(record["key"], record["value"]) for record in read] != [(record["key"], record["value"]) for record in by_key]:
        raise CheckFailed(f"the Node.js program read {len(read)} records, which are not the {sent} that the Python program sent")
    for record in read:
        if not record["by"].startswith("Python "):
            raise CheckFailed(f"the record `{record['key']}` has lost its header on the way from Python to Node.js")
