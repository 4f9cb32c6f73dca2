"""Keeps the readings that are hotter than a limit, and marks them with a header.

| setting | default | meaning |
|---|---|---|
| `limit` | `80` | a reading above this is kept |
| `field` | `temperature` | the field of the JSON object that holds the reading |
"""

from millpond_guest import transform


@transform
class Hot:
    def __init__(self, params):
        params.only("limit", "field")
        self.limit = params.float("limit", 80.0)
        self.field = params.str("field", "temperature")

    def transform(self, record, out):
        if record.value is None:
            out.keep(record)  # it deletes its key
            return
        reading = record.json().get(self.field)
        if type(reading) in (int, float) and reading > self.limit:
            out.emit(record.replace(headers=[*record.headers, ("alert", "hot")]))
        # neither kept nor emitted: dropped
