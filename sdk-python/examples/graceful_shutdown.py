"""Ends as a service should: on SIGTERM the work at hand is done, what was sent is stored, nothing hangs.

python graceful_shutdown.py millpond://localhost:9440?fp=sha256:...
"""

import asyncio
import signal
import sys

from millpond import aio


async def main(url: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with aio.connect(url) as client:
        await client.admin.create_topic("orders", if_exists="ok")
        await client.admin.create_topic("receipts", if_exists="ok")
        async with client.producer("receipts") as receipts, client.consumer("orders", start="beginning") as orders:
            done = 0

            async def work() -> None:
                nonlocal done
                async for order in orders:
                    receipts.send(f"receipt for {order.offset}", key=order.key)
                    done += 1

            working = asyncio.ensure_future(work())
            print("ready", flush=True)
            await stop.wait()
            # Reading can be cancelled at any point: no record is lost by that.
            working.cancel()
            await asyncio.wait([working])
        # The blocks have ended: every receipt is stored.
        print(f"{done} orders are done, next is offset {done}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
