"""Numbers the records of each key: 1, 2, 3 and so on, in a header. Whoever reads them sees at once whether one is missing, or came twice.

| setting | default | meaning |
|---|---|---|
| `header` | `count` | the name of the header, which takes the place of one that is there |

It keeps the number of each key, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`.
"""

from millpond_guest import state, transform


@transform
class Count:
    def __init__(self, params):
        params.only("header")
        self.header = params.str("header", "count")

    def transform(self, record, out):
        key = record.key or b""
        count = state.get_int(key) + 1
        state.put_int(key, count)
        others = [header for header in record.headers if header[0] != self.header]
        out.emit(record.replace(headers=[*others, (self.header, str(count))]))
