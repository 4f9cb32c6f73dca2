"""Shows that the installed package works on its platform: the native half loads, and a broker (MILLPOND_BIN) stores what it sends and gives it back,
in every compression, blocking and with asyncio. Run by check.sh.
"""

import asyncio
import platform
from typing import Literal

import millpond
from millpond import aio
from millpond.testing import broker

RECORDS = 2000
COMPRESSIONS: tuple[Literal["none", "gzip", "snappy", "lz4", "zstd"], ...] = ("none", "gzip", "snappy", "lz4", "zstd")


def value(number: int) -> str:
    return f'{{"device":"pump-{number % 7}","celsius":{number / 10}}}'


def blocking(url: str) -> None:
    with millpond.connect(url) as client:
        for compression in COMPRESSIONS:
            topic = f"by-{compression}"
            client.admin.create_topic(topic, partitions=1)
            with client.producer(topic, compression=compression) as producer:
                for number in range(RECORDS):
                    producer.send(value(number), key=str(number % 7), headers={"unit": "C"})
            consumer = client.consumer(topic, start="beginning", until_end=True, key=millpond.string, value=millpond.string)
            for seen, record in enumerate(consumer):
                assert (record.offset, record.key, record.value, record.header("unit")) == (seen, str(seen % 7), value(seen), b"C"), record
            assert seen == RECORDS - 1, seen


async def with_asyncio(url: str) -> None:
    async with aio.connect(url) as client:
        seen = 0
        async for record in client.consumer("by-zstd", start="beginning", until_end=True):
            assert record.offset == seen
            seen += 1
        assert seen == RECORDS, seen


with broker() as own:
    blocking(own.url)
    asyncio.run(with_asyncio(own.url))
print(f"Python {platform.python_version()} on {platform.machine()}: {len(COMPRESSIONS) * RECORDS} records sent and read back")
