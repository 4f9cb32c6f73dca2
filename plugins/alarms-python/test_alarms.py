import unittest

from alarms import Alarms
from millpond_guest import Failed, state
from millpond_guest.testing import Deriving, grant_state

TARGETS = ["alarms", "readings"]


def reading(device, celsius):
    return {"key": device, "value": f'{{"temperature":{celsius}}}'}


class Devices(unittest.TestCase):
    def setUp(self):
        grant_state(4 * (64 + 8 + 1))

    def test_an_alarm_is_raised_counted_and_cleared(self):
        alarms = Deriving(Alarms, {}, TARGETS)
        written = alarms.run([reading("a", 81), reading("b", 20), reading("a", 82)])
        shown = [(topic, record["key"], record["headers"]) for topic, record in written]
        self.assertEqual(shown, [("alarms", b"a", [("count", b"1")]), ("alarms", b"a", [("count", b"2")]), ("readings", b"b", [])])
        written = alarms.run([reading("a", 80)])
        self.assertEqual([(topic, record["headers"]) for topic, record in written], [("alarms", [("cleared", b"2")]), ("readings", [])])
        self.assertIsNone(state.get("a"))

    def test_a_question_is_answered_a_page_at_a_time(self):
        alarms = Deriving(Alarms, {"page": "2"}, TARGETS)
        alarms.run([reading(device, 90) for device in "acbd"])
        answer = alarms.run([{"value": ""}, {"value": "", "headers": [("after", "b")]}, {"value": "c"}])
        self.assertEqual([record["key"] for _, record in answer], [b"a", b"b", b"c", b"d", b"c"])

    def test_a_batch_that_fails_changes_nothing(self):
        alarms = Deriving(Alarms, {}, TARGETS)
        alarms.run([reading("a", 90)])
        with self.assertRaisesRegex(Failed, "the value is not a JSON object"):
            alarms.run([reading("a", 90), {"key": "a", "value": "[1]"}])
        with self.assertRaisesRegex(Failed, "the state is full"):
            alarms.run([reading(device, 90) for device in "abcde"])
        self.assertEqual([(key, state.get_int(key)) for key, _ in state.scan()], [(b"a", 1)])

    def test_it_needs_two_topics(self):
        self.assertRaisesRegex(Failed, "name two topics", Deriving, Alarms, {}, ["alarms"])
