"""The demo's Python program: sends what was stored, a record for each partition and each device, with the package `millpond`.

Takes the topic as its argument and JSON lines on stdin, each with a key and a value; the broker is the one in MILLPOND_URL.
"""

import json
import os
import sys

import millpond


def main(topic):
    with millpond.connect(os.environ["MILLPOND_URL"]) as client:
        client.admin.create_topic(topic, partitions=2)
        with client.producer(topic, key=millpond.string, value=millpond.json) as producer:
            for line in sys.stdin:
                summary = json.loads(line)
                producer.send(summary["value"], key=summary["key"], headers={"by": f"Python {millpond.__version__}"})
        # The block has ended: every record is stored.
        print(producer.stats.records)


if __name__ == "__main__":
    main(sys.argv[1])
