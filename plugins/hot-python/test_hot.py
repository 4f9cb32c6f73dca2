import unittest

from hot import Hot
from millpond_guest import Failed
from millpond_guest.testing import run


class Readings(unittest.TestCase):
    def test_hot_readings_are_kept_and_marked(self):
        stored = run(Hot, {}, [{"value": '{"temperature":81}'}, {"value": '{"temperature":80}'}, {"value": '{"temperature":"hot"}'}])
        self.assertEqual([(record["value"], record["headers"]) for record in stored], [(b'{"temperature":81}', [("alert", b"hot")])])

    def test_settings_choose_limit_and_field(self):
        self.assertEqual(len(run(Hot, {"limit": "20", "field": "celsius"}, [{"value": '{"celsius":20.5}'}])), 1)
        self.assertRaisesRegex(Failed, "the setting `limit` can't be `ten`", run, Hot, {"limit": "ten"}, [])

    def test_what_is_no_object_fails_its_batch(self):
        with self.assertRaisesRegex(Failed, "the value is not a JSON object") as failed:
            run(Hot, {}, [{"value": "{}"}, {"value": "[1]"}])
        self.assertEqual(failed.exception.record_index, 1)
