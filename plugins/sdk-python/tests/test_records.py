import unittest

import millpond_guest
from millpond_guest import Contract, Failed, Params, log, testing
from millpond_guest.testing import BASE_TIMESTAMP, Batch, place, records, run, section

SOME = [
    {"key": "k", "value": "v", "headers": [("a", "1"), ("a", None), ("größe", "ü")]},
    {"value": None, "timestamp": BASE_TIMESTAMP - 2**40},
    {"key": "", "value": "", "timestamp": 2 * BASE_TIMESTAMP},
    {"key": b"\xff\0", "value": "x" * 70_000, "timestamp": 0},
    *({"value": str(index)} for index in range(9000)),
]


class Keep:
    def __init__(self, params):
        params.only()

    def transform(self, record, out):
        out.keep(record)


class Again(Keep):
    def transform(self, record, out):
        out.emit(record)


class Records(unittest.TestCase):
    def test_the_bytes_are_kafkas(self):
        encoded = section([{"key": "k", "value": "va", "headers": [("h", None)], "timestamp": BASE_TIMESTAMP + 300}])
        self.assertEqual(encoded, bytes([26, 0, 0xD8, 4, 0, 2, 0x6B, 4, 0x76, 0x61, 2, 2, 0x68, 1]))

    def test_what_is_written_is_read_again_kept_or_emitted(self):
        before = records(section(SOME))
        self.assertEqual(before[0]["headers"], [("a", b"1"), ("a", None), ("größe", "ü".encode())])
        self.assertEqual(before[1]["timestamp"], BASE_TIMESTAMP - 2**40)
        self.assertEqual((before[3]["key"], before[8000]["offset_delta"]), (b"\xff\0", 8000))
        self.assertEqual(run(Keep, {}, SOME), before)
        self.assertEqual(run(Again, {}, SOME), before)

    def test_a_batch_that_is_kept_as_a_whole_is_not_copied(self):
        contract, whole = Contract(Keep), section(SOME)
        contract.init([])
        self.assertIs(contract.transform(Batch(len(SOME)), whole), whole)

    def test_runs_of_kept_records_lie_between_emitted_ones(self):
        class Odd:
            def __init__(self, _params):
                pass

            def transform(self, record, out):
                number = int(record.text())
                if number % 3 == 0:
                    out.keep(record)
                if number % 3 == 1:
                    out.emit(record.replace(value=f"{number}!", key=b"\1"))

        stored = run(Odd, {}, [{"value": str(number)} for number in (0, 1, 2, 3, 3, 4)])
        self.assertEqual([record["value"] for record in stored], [b"0", b"1!", b"3", b"3", b"4!"])

    def test_bytes_that_are_no_records_are_refused(self):
        whole = section(SOME[:3])
        for length in range(1, len(whole)):
            try:
                self.assertLess(len(records(whole[:length])), 3)
            except ValueError as error:
                self.assertEqual(str(error), "these bytes are not records")

    def test_an_error_names_its_record_and_a_mistake_is_logged_with_its_place(self):
        class Fails(Keep):
            def transform(self, record, out):
                if record.value == b"bad":
                    raise ValueError("it is bad")
                record.none()

        with self.assertRaises(Failed) as failed:
            run(Fails, {}, [{"value": "bad"}])
        self.assertEqual((failed.exception.message, failed.exception.record_index), ("it is bad", 0))
        with self.assertRaisesRegex(Failed, "AttributeError: 'Record' object has no attribute 'none'"):
            run(Fails, {}, [{"value": "worse"}])
        self.assertRegex(log.lines[-1][1], r"AttributeError.*test_records.py:\d+ in transform")

    def test_a_part_that_a_record_does_not_have_is_refused(self):
        with self.assertRaisesRegex(TypeError, "no part valeu"):
            next(millpond_guest.records(section(SOME[:1]), 0)).replace(valeu="x")


class Settings(unittest.TestCase):
    def test_settings_have_types_and_a_misspelt_one_is_refused(self):
        params = Params([("n", "1"), ("n", "2.5"), ("i", "3"), ("b", "true"), ("bad", "ten"), ("endless", "inf")])
        self.assertEqual((params.float("n", 0), params.int("i", 0), params.bool("b", False), params.str("s", "x")), (2.5, 3, True, "x"))
        for wrong in (lambda: params.float("bad", 0), lambda: params.float("endless", 0), lambda: params.int("n", 0), lambda: params.bool("bad", 0)):
            self.assertRaisesRegex(ValueError, "the setting `.*` can't be `.*`: it is", wrong)
        self.assertRaisesRegex(ValueError, "the setting `none` is missing", params.required, "none")
        self.assertRaisesRegex(ValueError, "no setting `bad`; there are: n, i, b, endless", params.only, "n", "i", "b", "endless")

    def test_a_module_does_one_thing(self):
        self.assertRaisesRegex(TypeError, "Keep has no method `partition`", millpond_guest.partitioner, Keep)
        self.assertRaisesRegex(TypeError, "Keep has no method `derive`", millpond_guest.derive, Keep)
        self.assertRaisesRegex(TypeError, "the module exports nothing", millpond_guest.exported, "transform")
        try:
            millpond_guest.transform(Keep)
            self.assertIs(millpond_guest.exported("transform"), Keep)
            self.assertRaisesRegex(TypeError, "Keep is exported already", millpond_guest.transform, Again)
            self.assertRaisesRegex(TypeError, "Keep exports `transform`, and the world .* has `derive`", millpond_guest.exported, "derive")
        finally:
            millpond_guest._exported.clear()

    def test_a_partitioner_places_each_record(self):
        class ByLength(Keep):
            def partition(self, record, partition_count):
                return len(record.value) % partition_count

        self.assertEqual(place(ByLength, {}, [{"value": "a"}, {"value": "abcde"}], 3), [1, 2])
        for wrong in (3, -1, 1.0, None):
            ByLength.partition = lambda self, record, count, wrong=wrong: wrong
            self.assertRaisesRegex(Failed, "there is no partition .* among 3", place, ByLength, {}, [{"value": "a"}], 3)

    def test_a_batch_can_fail_before_its_records(self):
        class Begins(Keep):
            def begin(self, batch):
                raise ValueError(f"not today, {batch.topic}")

        with self.assertRaisesRegex(Failed, "not today, test") as failed:
            run(Begins, {}, [{"value": "a"}])
        self.assertIsNone(failed.exception.record_index)

    def test_a_section_without_records_is_empty(self):
        self.assertEqual(testing.section([]), b"")
