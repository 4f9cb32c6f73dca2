"""Write modules that run inside the Millpond broker: transforms, which change records before they are stored, partitioners, which place
them, and modules that derive topics from others.

    from millpond_guest import transform

    @transform
    class Short:
        def __init__(self, params):
            params.only("bytes_max")
            self.bytes_max = params.int("bytes_max", 1024)

        def transform(self, record, out):
            if record.value is None or len(record.value) <= self.bytes_max:
                out.keep(record)  # neither kept nor emitted: dropped

A partitioner is a class under `@partitioner` with `partition(self, record, partition_count)`. A module that makes records of other topics is a
class under `@derive`, and may remember something (`millpond_guest.state`):

    from millpond_guest import derive, state

    @derive
    class Count:
        def __init__(self, params, targets):
            if len(targets) != 2:
                raise ValueError("name two topics")

        def derive(self, record, out):
            count = state.get_int(record.key) + 1
            state.put_int(record.key, count)
            out.emit(0 if count % 1000 else 1, record.replace(value=str(count)))

Each may have `begin(self, batch)`, which is called before the records of each batch. A `ValueError` fails the batch at this record, and its text is shown to whoever sent it; any other
exception does so too, and its traceback goes to the broker's log. There is no clock, no random number, no file and no network; memory,
time and output are limited. What is imported is loaded once, when the module is built: import at the top of a file, not in a function.
What a guest remembers between batches is a cache at most, but for its state: there may be several instances, and each may be replaced at any
time.

    one record, numbers are zig-zag varints of seven bits in a byte, the lowest first (KIP-98)
    +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
    | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
    |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
    +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
              |<------------------------------ length ----------------------------------------------------->|
    a length of -1 is a key or a value that is not there; a header is name length, name, value length, value
"""

import json as _json
import math as _math

from . import log, state

__all__ = ["Failed", "Output", "Outputs", "Params", "Record", "derive", "log", "partitioner", "state", "transform"]


class Record:
    """One record. Key and value are bytes, or None where there is none."""

    __slots__ = ("key", "value", "timestamp", "offset_delta", "_section", "_start", "_end", "_headers_at", "_headers")

    def __init__(self, section, start, end, timestamp, offset_delta, key, value, headers_at):
        self._section = section
        self._start = start
        self._end = end
        #: When it happened, in milliseconds since 1970-01-01 UTC, as the producer says.
        self.timestamp = timestamp
        #: The record's place in its batch.
        self.offset_delta = offset_delta
        self.key = key
        self.value = value
        self._headers_at = headers_at
        self._headers = None

    @property
    def headers(self):
        """Names and values, in order: a list of `(str, bytes | None)`."""
        if self._headers is None:
            self._headers = _headers(self._section, self._headers_at, self._end)
        return self._headers

    def header(self, name, default=None):
        """The value of the first header of this name."""
        return next((value for found, value in self.headers if found == name), default)

    def text(self):
        """The value as text; the empty text if there is none."""
        return (self.value or b"").decode()

    def json(self):
        """The value as JSON that must be an object."""
        try:
            value = _json.loads(self.text(), parse_constant=_no_constant)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ValueError("the value is not a JSON object")
        return value

    def replace(self, **parts):
        """The same record with another `key`, `value`, `headers` or `timestamp`. Text may stand for bytes."""
        unknown = parts.keys() - {"key", "value", "headers", "timestamp"}
        if unknown:
            raise TypeError(f"a record has no part {', '.join(sorted(unknown))}")
        changed = Record(None, 0, 0, parts.get("timestamp", self.timestamp), self.offset_delta, None, None, 0)
        changed.key = _bytes(parts.get("key", self.key))
        changed.value = _bytes(parts.get("value", self.value))
        headers = parts["headers"] if "headers" in parts else self.headers
        changed._headers = [(name, _bytes(value)) for name, value in headers]
        return changed


class Params:
    """Names and values, as they were given to `millpond transform attach TOPIC MODULE --param NAME=VALUE`."""

    def __init__(self, pairs):
        self._values = dict(pairs)  # if a name is there twice, the last counts

    def str(self, name, default):
        """The text of a setting, or a default."""
        return self._values.get(name, default)

    def float(self, name, default):
        """A setting as a number, or a default."""
        return self._parse(name, default, _finite, "it is not a number")

    def int(self, name, default):
        """A setting as a whole number, or a default."""
        return self._parse(name, default, int, "it is not a whole number")

    def bool(self, name, default):
        """A setting that is true or false, or a default."""
        return self._parse(name, default, {"true": True, "false": False}.__getitem__, "it is true or false")

    def required(self, name):
        """The text of a setting that must be set."""
        if name not in self._values:
            raise ValueError(f"the setting `{name}` is missing")
        return self._values[name]

    def only(self, *names):
        """Refuses settings that the module does not have, so that a misspelt name is not silently without effect."""
        for name in self._values:
            if name not in names:
                there = f"; there are: {', '.join(names)}" if names else ": this module has none"
                raise ValueError(f"there is no setting `{name}`{there}")

    def _parse(self, name, default, parse, wrong):
        if name not in self._values:
            return default
        try:
            return parse(self._values[name])
        except (ValueError, KeyError):
            raise ValueError(f"the setting `{name}` can't be `{self._values[name]}`: {wrong}") from None


class Output:
    """Takes the records to be stored. A record that is neither kept nor emitted is dropped, and its offset stays unused."""

    __slots__ = ("_section", "_base_timestamp", "_parts", "_start", "_end")

    def __init__(self, section, base_timestamp):
        self._section = section
        self._base_timestamp = base_timestamp
        self._parts = []
        self._start = self._end = 0

    def keep(self, record):
        """Stores the record as it came. This is the fast way: neighbours are copied together."""
        if record._start != self._end:
            self._end_run()
            self._start = record._start
        self._end = record._end

    def emit(self, record):
        """Stores a changed record. Several may be made of one: then the broker numbers the records of the batch anew."""
        self._end_run()
        headers = record.headers
        body = [
            b"\0",
            _number(record.timestamp - self._base_timestamp),
            _number(record.offset_delta),
            _part(record.key),
            _part(record.value),
            _number(len(headers)),
        ]
        for name, value in headers:
            body.append(_part(name.encode()))
            body.append(_part(value))
        body = b"".join(body)
        self._parts.append(_number(len(body)))
        self._parts.append(body)

    def finish(self):
        """The records section."""
        self._end_run()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _end_run(self):
        if self._end > self._start:
            whole = self._start == 0 and self._end == len(self._section)
            self._parts.append(self._section if whole else self._section[self._start : self._end])
        self._start = self._end = 0


class Outputs:
    """Takes the records for topics, which are counted from 0 in the order in which they were named. The broker chooses the partition by the
    key."""

    __slots__ = ("_outputs",)

    def __init__(self, section, base_timestamp, target_count):
        self._outputs = [Output(section, base_timestamp) for _ in range(target_count)]

    def keep(self, target, record):
        """Writes the record as it came to a topic."""
        self._to(target).keep(record)

    def emit(self, target, record):
        """Writes a changed record to a topic."""
        self._to(target).emit(record)

    def finish(self):
        """The records sections of the topics to which something was written."""
        sections = enumerate(output.finish() for output in self._outputs)
        return [(target, section) for target, section in sections if section]

    def _to(self, target):
        if not 0 <= target < len(self._outputs):
            raise IndexError(f"there is no target {target}: {len(self._outputs)} were named")
        return self._outputs[target]


class Failed(Exception):
    """A batch could not be processed: the text, and the record at fault, counted from 0."""

    def __init__(self, message, record_index=None):
        super().__init__(message)
        self.message = message
        self.record_index = record_index


def transform(guest):
    """Makes a class the module's transform. Once in a module."""
    _export(guest, "transform")
    return guest


def partitioner(guest):
    """Makes a class the module's partitioner. Once in a module."""
    _export(guest, "partition")
    return guest


def derive(guest):
    """Makes a class the module's, which derives topics. Once in a module."""
    _export(guest, "derive")
    return guest


def exported(function):
    """The class that the module exports, for its build, which was told the world and with it the function."""
    if not _exported:
        raise TypeError("the module exports nothing: put `@transform`, `@partitioner` or `@derive` above its class")
    guest, found = _exported[0]
    if found != function:
        raise TypeError(f"{guest.__name__} exports `{found}`, and the world that the module is built for has `{function}`")
    return guest


class Contract:
    """The functions of the contract, over the one guest of an instance."""

    def __init__(self, guest):
        self._class = guest
        self._guest = None
        self._target_count = 0

    def init(self, params, *targets):
        """Starts the guest, with the list of topics if it derives them. Raises `Failed` with the words of its refusal."""
        self._target_count = sum(map(len, targets))
        try:
            self._guest = self._class(Params(params), *targets)
        except Exception as error:
            raise Failed(_describe(error)) from None

    def transform(self, batch, section):
        """Calls the transform for the records of one batch."""
        out = Output(section, batch.base_timestamp)
        act = self._guest.transform
        self._each(batch, section, lambda record: act(record, out))
        return out.finish()

    def partition(self, batch, section, partition_count):
        """Calls the partitioner for the records of one batch."""
        partitions = []
        choose = self._guest.partition

        def act(record):
            partition = choose(record, partition_count)
            if type(partition) is not int or not 0 <= partition < partition_count:
                raise ValueError(f"there is no partition {partition} among {partition_count}")
            partitions.append(partition)

        self._each(batch, section, act)
        return partitions

    def derive(self, batch, section):
        """Calls the module for the records of one batch. Gives indexes of topics with their records sections."""
        out = Outputs(section, batch.base_timestamp, self._target_count)
        act = self._guest.derive
        self._each(batch, section, lambda record: act(record, out))
        return out.finish()

    def _each(self, batch, section, act):
        index = None
        try:
            if hasattr(self._guest, "begin"):
                self._guest.begin(batch)
            index = 0
            for record in records(section, batch.base_timestamp):
                act(record)
                index += 1
        except Exception as error:
            raise Failed(_describe(error), index) from None


def records(section, base_timestamp):
    """The records of a section, one after another."""
    at, end_of_all = 0, len(section)
    while at < end_of_all:
        start = at
        try:
            length, at = _take(section, at)
            end = at + length
            if length <= 0 or end > end_of_all:
                raise IndexError
            delta, at = _take(section, at + 1)  # behind the attributes, of which no bit has a meaning
            offset, at = _take(section, at)
            key, at = _take_part(section, at)
            value, at = _take_part(section, at)
        except IndexError:
            raise ValueError("these bytes are not records") from None
        yield Record(section, start, end, base_timestamp + delta, offset, key, value, at)
        at = end


def _export(guest, function):
    if _exported:
        raise TypeError(f"a module does one thing: {_exported[0][0].__name__} is exported already")
    if not hasattr(guest, function):
        raise TypeError(f"{guest.__name__} has no method `{function}`")
    _exported.append((guest, function))


def _describe(error):
    if type(error) is ValueError:
        return str(error)
    trace, steps = error.__traceback__, []
    while trace is not None:
        steps.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno} in {trace.tb_frame.f_code.co_name}")
        trace = trace.tb_next
    words = f"{type(error).__name__}: {error}"
    log.error(f"{words}; {'; '.join(reversed(steps))}")
    return words


def _take(section, at):
    folded = section[at]
    at += 1
    if folded >= 0x80:  # most numbers have one byte
        folded &= 0x7F
        shift = 7
        while True:
            byte = section[at]
            at += 1
            folded |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ValueError("these bytes are not records")
    return (folded >> 1) ^ -(folded & 1), at


def _take_part(section, at):
    length = section[at]
    if length < 0x80:
        at += 1
        if length == 1:
            return None, at
        length >>= 1
    else:
        length, at = _take(section, at)
        if length < 0:
            return None, at
    return section[at : at + length], at + length


def _headers(section, at, end):
    count, at = _take(section, at)
    headers = []
    for _ in range(count):
        name, at = _take_part(section, at)
        value, at = _take_part(section, at)
        headers.append((name.decode(), value))
    return headers


def _number(value):
    folded = (value << 1) ^ (value >> 63)
    if folded < 0x80:
        return _SHORT[folded]
    out = bytearray()
    while folded >= 0x80:
        out.append(folded & 0x7F | 0x80)
        folded >>= 7
    out.append(folded)
    return bytes(out)


def _part(part):
    return b"\x01" if part is None else _number(len(part)) + part


def _bytes(text):
    return text.encode() if isinstance(text, str) else text


def _finite(text):
    number = float(text)
    if not _math.isfinite(number):
        raise ValueError
    return number


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


_SHORT = [bytes([number]) for number in range(0x80)]

_exported = []
