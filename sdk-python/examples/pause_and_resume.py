"""Holds a partition back while something else is slow, and goes on with it.

python pause_and_resume.py millpond://localhost:9440?fp=sha256:...
"""

import sys

import millpond


def main(url: str) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic("work", partitions=2, if_exists="ok")
        with client.producer("work") as producer:
            for number in range(6):
                producer.send(f"job {number}", partition=number % 2)
        consumer = client.consumer("work", start="beginning", until_end=True)
        consumer.pause(0)
        records = iter(consumer)
        print("while partition 0 is paused:", [next(records).value for _ in range(3)])
        print("it waits at offset", consumer.position(0))
        consumer.resume(0)
        print("afterwards:", [record.value for record in records])


if __name__ == "__main__":
    main(sys.argv[1])
