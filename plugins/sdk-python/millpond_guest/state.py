"""What a module keeps between batches: keys and values, for an attachment with derived topics that was granted some bytes (`--state-bytes`).

    count = state.get_int(record.key) + 1
    state.put_int(record.key, count)
    for key, value in state.scan("pump-", after="pump-3", limit=10):
        ...

There is one state for each partition of the source. It changes together with the position in the source and with what was written: after any
crash, all of it is there or nothing. What was changed in a batch on which the module failed is taken back.

It is there in modules of the worlds `stateful-derive` and `stateful-transform`, while a batch is processed, and not in `__init__`. In a native
test it is in memory, see `millpond_guest.testing.grant_state`. Keys and values are bytes; text may stand for them.
"""

import struct as _struct

#: Entries that are asked for at once.
PAGE_ENTRIES = 256


class _NoStore:
    """What stands where there is no state."""

    def __getattr__(self, name):
        raise ValueError("the module has no state: build it for the world `stateful-derive` or `stateful-transform`")


#: Keeps the entries; the module's build puts the broker's in its place, a native test one in memory.
store = _NoStore()


def get(key):
    """The value of a key, or None."""
    return store.get(_bytes(key))


def put(key, value):
    """Gives a key a value. A `ValueError` says that the key is longer than 1 KiB, or that the state would have more bytes than were granted:
    those of all keys and values, and 64 for each. Nothing is changed then."""
    store.put(_bytes(key), _bytes(value))


def delete(key):
    """Removes a key, if it is there."""
    store.delete(_bytes(key))


def scan(prefix=b"", after=None, limit=None):
    """The entries whose key begins with `prefix` and comes behind `after`, in bytewise order of the keys: all of them, or `limit` at most. They
    are fetched a page at a time, and the state may be changed meanwhile: what is changed behind the page is seen."""
    prefix, after = _bytes(prefix), None if after is None else _bytes(after)
    while limit is None or limit > 0:
        page = store.scan(prefix, after, PAGE_ENTRIES if limit is None else min(limit, PAGE_ENTRIES))
        if not page:
            return
        yield from page
        after = page[-1][0]
        if limit is not None:
            limit -= len(page)


def get_int(key):
    """A number that `put_int` has put; 0 where there is none."""
    value = get(key)
    return int.from_bytes(value, "big") if value is not None and len(value) == 8 else 0


def put_int(key, number):
    """Gives a key a whole number from 0 to 2**64 - 1: eight bytes, the highest first."""
    put(key, number.to_bytes(8, "big"))


def get_float(key):
    """A number that `put_float` has put, or None."""
    value = get(key)
    return _struct.unpack(">d", value)[0] if value is not None and len(value) == 8 else None


def put_float(key, number):
    """Gives a key a number: eight bytes, the highest first."""
    put(key, _struct.pack(">d", number))


def _bytes(text):
    if isinstance(text, str):
        return text.encode()
    if not isinstance(text, (bytes, bytearray, memoryview)):
        raise TypeError(f"a key or a value is text or bytes, not {type(text).__name__}")
    return bytes(text)
