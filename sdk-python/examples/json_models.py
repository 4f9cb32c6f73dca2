"""Dataclasses (or Pydantic models) as JSON, and a record that is none.

python json_models.py millpond://localhost:9440?fp=sha256:...
"""

import sys
from dataclasses import dataclass

import millpond


@dataclass
class Reading:
    device: str
    celsius: float
    note: str | None = None


def main(url: str) -> None:
    reading = millpond.model(Reading)
    with millpond.connect(url) as client:
        for topic in ("readings", "readings-bad"):
            client.admin.create_topic(topic, if_exists="ok")
        with client.producer("readings", value=reading) as producer:
            producer.send(Reading("device-7", 21.4))
            producer.send(Reading("device-8", 19.9, "window open"))
        with client.producer("readings") as raw:
            raw.send("this is no reading")
        consumer = client.consumer(
            "readings",
            start="beginning",
            until_end=True,
            value=reading,
            on_decode_error="dead-letter",
            dead_letter_topic="readings-bad",
        )
        for record in consumer:
            value = record.value
            if value is not None:
                print(f"{value.device}: {value.celsius} {value.note or ''}")
        for bad in client.consumer("readings-bad", start="beginning", until_end=True):
            print("bad:", bad.value, bad.header("millpond.error.code"))


if __name__ == "__main__":
    main(sys.argv[1])
