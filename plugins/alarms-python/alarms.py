"""Alarms of devices: a reading above a limit raises the alarm of its device, which is the record's key, and one that is not clears it. Attached
with `--into ALARMS,READINGS --state-bytes BYTES`.

| setting | default | meaning |
|---|---|---|
| `limit` | `80` | a reading above this is an alarm |
| `field` | `temperature` | the field of the JSON object that holds the reading |
| `page` | `100` | how many alarms answer a question, at most |

A record without a key is a question for the alarms that are raised, of devices that begin with its value and come behind its header `after`.
"""

from millpond_guest import derive, state

ALARMS, READINGS = 0, 1


@derive
class Alarms:
    def __init__(self, params, targets):
        params.only("limit", "field", "page")
        self.limit = params.float("limit", 80.0)
        self.field = params.str("field", "temperature")
        self.page = params.int("page", 100)
        if len(targets) != 2:
            raise ValueError("name two topics: one for the alarms, one for the readings")

    def derive(self, record, out):
        device = record.key
        if device is None:
            self.answer(record, out)
        elif record.value is None:  # the device is gone
            state.delete(device)
            out.keep(ALARMS, record)
            out.keep(READINGS, record)
        else:
            self.reading(device, record, out)

    def reading(self, device, record, out):
        reading = record.json().get(self.field)
        count = state.get_int(device)
        if type(reading) in (int, float) and reading > self.limit:
            state.put_int(device, count + 1)
            out.emit(ALARMS, record.replace(headers=[*record.headers, ("count", str(count + 1))]))
            return
        if count > 0:
            state.delete(device)
            out.emit(ALARMS, record.replace(value=None, headers=[("cleared", str(count))]))
        out.keep(READINGS, record)

    def answer(self, question, out):
        for device, count in state.scan(question.value or b"", question.header("after"), self.page):
            out.emit(ALARMS, question.replace(key=device, value=str(int.from_bytes(count, "big")), headers=[]))
