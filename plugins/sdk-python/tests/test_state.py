import unittest

from millpond_guest import Failed, state
from millpond_guest.testing import BASE_TIMESTAMP, Deriving, grant_state, run


class State(unittest.TestCase):
    def setUp(self):
        grant_state()

    def test_entries_come_in_order_over_any_number_of_pages(self):
        for number in reversed(range(700)):
            state.put(f"a{number:04}", "x")
        state.put(b"b", b"")
        keys = [f"a{number:04}".encode() for number in range(700)]
        self.assertEqual([key for key, _ in state.scan("a")], keys)
        self.assertEqual([key for key, _ in state.scan()], [*keys, b"b"])
        self.assertEqual([key for key, _ in state.scan("a", after="a0100", limit=300)], keys[101:401])
        self.assertEqual((list(state.scan("a", limit=0)), list(state.scan("c")), list(state.scan(after="b"))), ([], [], []))
        pages = state.scan("a")
        next(pages)
        state.delete("a0699")  # behind the page
        self.assertEqual(len(list(pages)), 698)

    def test_what_is_put_is_there_until_it_is_deleted(self):
        state.put("größe", "ü")
        self.assertEqual((state.get("größe".encode()), state.get("none")), ("ü".encode(), None))
        state.put("größe", bytearray(b"1"))
        state.delete("none")
        self.assertEqual(state.get("größe"), b"1")
        state.delete("größe")
        self.assertIsNone(state.get("größe"))
        for wrong in (lambda: state.get(5), lambda: state.put("a", None), lambda: state.put("a", 1.5), lambda: list(state.scan(None))):
            self.assertRaisesRegex(TypeError, "a key or a value is text or bytes, not", wrong)

    def test_numbers_have_eight_bytes_the_highest_first(self):
        state.put_int("i", 258)
        state.put_float("f", -0.5)
        self.assertEqual((state.get("i"), state.get_int("i"), state.get_int("none")), (b"\0\0\0\0\0\0\1\2", 258, 0))
        self.assertEqual((state.get("f"), state.get_float("f"), state.get_float("none")), (b"\xbf\xe0\0\0\0\0\0\0", -0.5, None))
        state.put_int("i", 2**64 - 1)
        self.assertEqual(state.get_int("i"), 2**64 - 1)
        self.assertRaises(OverflowError, state.put_int, "i", -1)
        state.put("i", "short")
        self.assertEqual((state.get_int("i"), state.get_float("i")), (0, None))

    def test_a_state_that_is_full_refuses_what_would_make_it_larger(self):
        grant_state(2 * (64 + 1 + 8))
        state.put_int("a", 1)
        state.put_int("b", 1)
        with self.assertRaisesRegex(ValueError, "the state is full: it would have 211 bytes, and 146 are granted"):
            state.put("c", "")
        with self.assertRaisesRegex(ValueError, "a key of 1025 bytes is too long, 1024 are allowed"):
            state.put(bytes(1025), "")
        state.put_int("a", 2)
        self.assertEqual((state.get_int("a"), state.get("c")), (2, None))

    def test_a_world_without_state_says_so(self):
        kept, state.store = state.store, state._NoStore()
        try:
            for wrong in (lambda: state.get("a"), lambda: state.put_int("a", 1), lambda: list(state.scan())):
                self.assertRaisesRegex(ValueError, "the module has no state: build it for the world `stateful-derive`", wrong)
        finally:
            state.store = kept


class Twice:
    """Writes a record to both topics, the second time with how often it saw the key."""

    def __init__(self, params, targets):
        params.only()
        if [target.name for target in targets] != ["one", "two"]:
            raise ValueError("name two topics")
        self.offsets = []

    def begin(self, batch):
        self.offsets.append(batch.base_offset)

    def derive(self, record, out):
        count = state.get_int(record.key) + 1
        state.put_int(record.key, count)
        out.keep(0, record)
        if record.value == b"bad":
            raise ValueError("it is bad")
        out.emit(int(record.value or 1), record.replace(key=f"{count}", value=None))


class Topics(unittest.TestCase):
    def setUp(self):
        grant_state()

    def test_records_go_to_the_topics_that_the_module_chooses(self):
        twice = Deriving(Twice, {}, ["one", "two"])
        first = twice.run([{"key": "a"}, {"key": "b", "timestamp": 5, "headers": [("h", None)]}, {"key": "a", "value": "0"}])
        self.assertEqual([(topic, record["key"]) for topic, record in first], [("one", b"a"), ("one", b"b"), ("one", b"a"), ("one", b"2"), ("two", b"1"), ("two", b"1")])
        self.assertEqual((first[1][1]["timestamp"], first[5][1]["timestamp"], first[5][1]["headers"]), (5, 5, [("h", None)]))
        self.assertEqual(twice.run([{"key": "a"}])[1], ("two", {"offset_delta": 0, "timestamp": BASE_TIMESTAMP, "key": b"3", "value": None, "headers": []}))
        self.assertEqual(twice._contract._guest.offsets, [0, 3])

    def test_a_batch_that_fails_writes_nothing_and_changes_nothing(self):
        twice = Deriving(Twice, {}, ["one", "two"])
        twice.run([{"key": "a"}])
        for value, words in (("bad", "it is bad"), ("2", "IndexError: there is no target 2: 2 were named"), ("-1", "there is no target -1: 2 were named")):
            with self.assertRaisesRegex(Failed, words) as failed:
                twice.run([{"key": "a"}, {"key": "b", "value": value}])
            self.assertEqual(failed.exception.record_index, 1)
        self.assertEqual([(key, state.get_int(key)) for key, _ in state.scan()], [(b"a", 1)])
        self.assertRaisesRegex(Failed, "name two topics", Deriving, Twice, {}, ["one"])

    def test_a_transform_keeps_state_too(self):
        class Once:
            def __init__(self, params):
                pass

            def transform(self, record, out):
                if state.get(record.key) is None:
                    state.put(record.key, "")
                    out.keep(record)
                if record.value == b"bad":
                    raise ValueError("it is bad")

        seen = lambda *keys: [record["key"] for record in run(Once, {}, [{"key": key} for key in keys])]
        self.assertEqual((seen("a", "b", "a"), seen("b", "c")), ([b"a", b"b"], [b"c"]))
        self.assertRaises(Failed, run, Once, {}, [{"key": "d"}, {"key": "e", "value": "bad"}])
        self.assertEqual(seen("d", "a"), [b"d"])
