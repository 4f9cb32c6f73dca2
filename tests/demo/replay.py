"""The bigger file that the demo replays: made from the live capture, or one of yours."""

import json

from telemetry import line

# Records of the file that the demo makes.
RECORDS = 300_000

# It pretends that so many gateways sent what this machine captured.
GATEWAYS = 24

# What drop-idle puts in place of a host name.
MASKED = "***"

# What a line may hold to be a record for `millpond produce -i jsonl`.
RECORD_FIELDS = {"key", "key_base64", "value", "value_base64", "headers", "timestamp", "partition", "topic", "offset"}
VALUE_FIELDS = {"value", "value_base64"}

# What says where a record was before: in the demo's topic it finds its own place.
PLACE_FIELDS = {"partition", "topic", "offset"}


class Input:
    """What went into a file, for the checks afterwards."""

    def __init__(self):
        self.records = 0
        self.idle = 0
        # Lines of a file that are not JSON.
        self.plain = 0
        self.hosts = set()

    def see(self, value):
        """Counts a record, and remembers what must not come out again."""
        self.records += 1
        if isinstance(value, dict):
            self.idle += value.get("state") == "idle"
            # What was masked before is masked again, and looks the same.
            if isinstance(value.get("host"), str) and value["host"] != MASKED:
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
            seen.see(value)
            file.write(line({"key": device, "timestamp": record["timestamp"] + turn * span_ms, "value": value}) + "\n")


def convert(source, path, seen):
    """Copies the file `source` to `path`, line by line: a record stays one, any other line becomes a value.

    Bytes that are not UTF-8 become question marks: JSON has no other place for them.
    """
    with open(source, encoding="utf-8", errors="replace", newline="\n") as lines, open(path, "w", encoding="utf-8") as file:
        for text in lines:
            text = text.rstrip("\r\n")
            if text:
                file.write(as_record(text, seen) + "\n")


def as_record(text, seen):
    """One line of the user's as a line for `produce -i jsonl`."""
    parsed = parse(text)
    if is_record(parsed):
        seen.see(stored(parsed.get("value")))
        if PLACE_FIELDS.isdisjoint(parsed):
            return text
        return line({field: held for field, held in parsed.items() if field not in PLACE_FIELDS})
    seen.see(parsed)
    seen.plain += parsed is None and text.strip() != "null"
    record = {"value": text}
    if isinstance(parsed, dict) and isinstance(parsed.get("device"), str):
        record["key"] = parsed["device"]
    return line(record)


def is_record(parsed):
    return isinstance(parsed, dict) and RECORD_FIELDS.issuperset(parsed) and not VALUE_FIELDS.isdisjoint(parsed)


def stored(value):
    """What a record's value is for a module: a string is stored as it is, so what it holds may be JSON again."""
    return parse(value) if isinstance(value, str) else value


def parse(text):
    """What JSON says, or None. Python takes words for numbers, such as NaN, that JSON does not know."""
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def refuse(word):
    raise ValueError(word)
