"""Sends three records and reads them back, blocking and with asyncio.

python produce_and_consume.py millpond://localhost:9440?fp=sha256:...
"""

import asyncio
import sys

import millpond
from millpond import aio


def blocking(url: str) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic("greetings", partitions=2, if_exists="ok")
        with client.producer("greetings") as producer:
            for word in ("hello", "from", "Python"):
                producer.send(word)
            place = producer.send("!").result(timeout=10)
            print(f"the last one is at partition {place.partition}, offset {place.offset}")
        for record in client.consumer("greetings", start="beginning", until_end=True):
            print(record.partition, record.offset, record.value)


async def awaited(url: str) -> None:
    async with aio.connect(url) as client:
        async with client.producer("greetings") as producer:
            await asyncio.gather(*(producer.send(f"async {number}") for number in range(3)))
        async for record in client.consumer("greetings", start="beginning", until_end=True):
            print(record.partition, record.offset, record.value)


if __name__ == "__main__":
    blocking(sys.argv[1])
    asyncio.run(awaited(sys.argv[1]))
