"""Keys decide about the partition, headers carry what is about a record.

python headers_and_keys.py millpond://localhost:9440?fp=sha256:...
"""

import sys

import millpond


def main(url: str) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic("devices", partitions=4, if_exists="ok")
        with client.producer("devices", key=millpond.string, value=millpond.string) as producer:
            for number in range(12):
                device = f"device-{number % 3}"
                producer.send(f"reading {number}", key=device, headers={"unit": "C", "trace": f"{number:04x}"})
            # A tombstone: the value of this key is gone.
            producer.send(None, key="device-0")
        partitions: dict[str, set[int]] = {}
        consumer = client.consumer("devices", start="beginning", until_end=True, key=millpond.string, value=millpond.string)
        for record in consumer:
            if record.key is not None:
                partitions.setdefault(record.key, set()).add(record.partition)
            print(record.key, record.value, record.header("unit"), record.headers)
        for device, found in sorted(partitions.items()):
            print(f"{device} is in {len(found)} partition")


if __name__ == "__main__":
    main(sys.argv[1])
