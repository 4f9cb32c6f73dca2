"""Reads what happened from a time on.

python start_at_a_time.py millpond://localhost:9440?fp=sha256:...
"""

import sys
from datetime import datetime, timedelta, timezone

import millpond

MIDNIGHT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def main(url: str) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic("door", if_exists="ok")
        with client.producer("door") as producer:
            for hour in range(24):
                producer.send(f"opened in hour {hour}", timestamp=MIDNIGHT + timedelta(hours=hour))
        # Times are aware datetimes: one without a time zone is refused, and so is a number.
        evening = MIDNIGHT + timedelta(hours=21)
        with client.consumer("door", start=evening, until_end=True) as consumer:
            for record in consumer:
                print(record.timestamp.isoformat(), record.value)
            consumer.seek(at=MIDNIGHT)
            print("back at offset", consumer.position(0))


if __name__ == "__main__":
    main(sys.argv[1])
