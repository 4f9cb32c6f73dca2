"""The bigger file that the demo replays: made from the live capture, or one of yours."""

import json

from telemetry import line

# Records of the file that the demo makes.
RECORDS = 300_000

# It pretends that so many gateways sent what this machine captured.
GATEWAYS = 24

# What a line may hold to be a record for `millpond produce -i jsonl`.
RECORD_FIELDS = {"key", "key_base64", "value", "value_base64", "headers", "timestamp", "partition", "topic", "offset"}
VALUE_FIELDS = {"value", "value_base64"}

# What says where a record was before: in the demo's topic it finds its own place.
PLACE_FIELDS = {"partition", "topic", "offset"}


class Input:
    """What went into a file, for the checks afterwards."""

    def __init__(self):
        self.records = 0
        self.hosts = set()

    def see(self, value):
        """Remembers the host names that must not come out again."""
        if isinstance(value, dict) and isinstance(value.get("host"), str):
            self.hosts.add(value["host"])


def generate(captured, path, seen, records=RECORDS):
    """Writes `records` lines to `path`: the captured readings again and again, from many gateways, their time going on."""
    if not captured:
        raise ValueError("nothing was captured")
    span_ms = max(1, captured[-1]["timestamp"] - captured[0]["timestamp"] + 50)
    gateways = [(f"gw{number:02}", f"gateway-{number:02}.plant.example") for number in range(GATEWAYS)]
    with open(path, "w", encoding="utf-8") as file:
        for index in range(records):
            gateway, host = gateways[index % GATEWAYS]
            turn, at = divmod(index // GATEWAYS, len(captured))
            record = captured[at]
            device = f"{gateway}/{record['key']}"
            value = dict(record["value"], device=device, host=host, sequence=index)
            file.write(line({"key": device, "timestamp": record["timestamp"] + turn * span_ms, "value": value}) + "\n")
    seen.hosts.update(host for _, host in gateways)
    seen.records += records


def convert(source, path, seen):
    """Copies the file `source` to `path`, line by line: a record stays one, any other line becomes a value."""
    with open(source, encoding="utf-8", errors="replace", newline="\n") as lines, open(path, "w", encoding="utf-8") as file:
        for text in lines:
            text = text.rstrip("\r\n")
            if text:
                seen.records += 1
                file.write(as_record(text, seen) + "\n")


def as_record(text, seen):
    """One line of the user's as a line for `produce -i jsonl`."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return line({"value": text})
    if is_record(parsed):
        value = parsed.get("value")
        seen.see(parse_if_json(value))
        if PLACE_FIELDS.isdisjoint(parsed):
            return text
        return line({field: held for field, held in parsed.items() if field not in PLACE_FIELDS})
    seen.see(parsed)
    record = {"value": text}
    if isinstance(parsed, dict) and isinstance(parsed.get("device"), str):
        record["key"] = parsed["device"]
    return line(record)


def is_record(parsed):
    return isinstance(parsed, dict) and RECORD_FIELDS.issuperset(parsed) and not VALUE_FIELDS.isdisjoint(parsed)


def parse_if_json(value):
    """A value that is itself JSON in a string, as it is stored."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return None
    return value
