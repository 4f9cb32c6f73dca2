"""Signals, forks, the end of the interpreter, and what is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import millpond
from millpond import _core
from millpond.testing import Broker

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CTRL_C_SECONDS_MAX = 0.2

BLOCKING = {
    "record": "next(iter(client.consumer(topic)))",
    "batch": "next(client.consumer(topic).batches(max_records=10, max_wait=60))",
    "result": "freeze(); client.producer(topic).send('x').result()",
    "result_timeout": "freeze(); client.producer(topic).send('x').result(60)",
    "many": "freeze(); producer.send_many([b'x' * 1000] * 100_000)",
    "send": "freeze(); [producer.send(b'x' * 1_000_000) for _ in range(100)]",
    "flush": "freeze(); producer.send('x'); producer.flush()",
    "close": "freeze(); producer.send('x'); producer.close()",
    "seek": "freeze(); consumer.seek('beginning')",
    "resume": "consumer.pause(); freeze(); consumer.resume()",
    "admin": "freeze(); client.admin.topics()",
    "consumer": "freeze(); client.consumer(topic)",
    "producer": "freeze(); client.producer(topic)",
    "connect": "freeze(); millpond.connect(broker.url, connect_timeout=60)",
}

SETUP = """
import os, signal, sys, threading, time
import millpond
from millpond.testing import broker as start_broker

def alarm():
    # As soon as the main thread waits in the native module, which it does once it gives up the GIL.
    started.wait()
    main = f"/proc/self/task/{os.getpid()}/stat"
    calm, turn = 0, threading.Event()
    while calm < 20:
        state = open(main).read().rsplit(")", 1)[1].split()[0]
        calm = calm + 1 if state == "S" else 0
        turn.wait(0.001)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

started, sent = threading.Event(), []
with start_broker() as broker:
    def freeze():
        broker.freeze()
        started.set()
    client = millpond.connect(broker.url)
    topic = "t"
    client.admin.create_topic(topic)
    producer, consumer = client.producer(topic), client.consumer(topic)
    threading.Thread(target=alarm, daemon=True).start()
    try:
        if "freeze" not in CODE:
            started.set()
        exec(CODE)
        print("it came back")
    except KeyboardInterrupt:
        print(time.monotonic() - sent[0])
    broker.kill()
    os._exit(0)
"""


@pytest.mark.parametrize("name", BLOCKING)
def test_ctrl_c_ends_every_wait(name: str) -> None:
    code = f"CODE = {BLOCKING[name]!r}\n{SETUP}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < CTRL_C_SECONDS_MAX, done.stdout


FORK = """
import asyncio, os, sys
import millpond
from millpond import aio
url, topic = sys.argv[1:]
client = millpond.connect(url)
producer, consumer = client.producer(topic), client.consumer(topic, start="beginning")
delivery = producer.send("x")
uses = {
    "connect": lambda: millpond.connect(url),
    "admin": lambda: client.admin.topics(),
    "producer": lambda: client.producer(topic),
    "consumer": lambda: client.consumer(topic),
    "send": lambda: producer.send("x"),
    "flush": lambda: producer.flush(),
    "read": lambda: next(iter(consumer)),
    "batch": lambda: next(consumer.batches()),
    "seek": lambda: consumer.seek("end"),
    "aio": lambda: asyncio.run(aio.connect(url)._connect()),
}
child = os.fork()
if child == 0:
    wrong = []
    for name, use in uses.items():
        try:
            use()
            wrong.append(name)
        except millpond.ForkedError as error:
            if error.code != "forked" or "spawn" not in error.hint or not isinstance(error, RuntimeError):
                wrong.append(name)
    consumer.close()
    producer.close()
    client.close()
    assert not client.is_connected
    del uses, producer, consumer, client, delivery
    sys.exit(7 if not wrong else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
# The parent goes on as if nothing had happened.
assert delivery.result(10).offset == 0
assert next(iter(consumer)).value == b"x"
client.close()
print("well")
"""


def test_a_forked_child_is_told_and_exits_as_it_should(run: Run, topic: str) -> None:
    done = run(FORK, topic)
    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr


MULTIPROCESSING = """
import multiprocessing, sys
import millpond

def work(url, topic):
    with millpond.connect(url) as client:
        client.producer(topic).send("from a child").result(10)

if __name__ == "__main__":
    url, topic = sys.argv[1:]
    # Nothing was connected yet: a fork is as good as any other start.
    child = multiprocessing.get_context("fork").Process(target=work, args=(url, topic))
    child.start()
    child.join()
    assert child.exitcode == 0
    with millpond.connect(url) as client:
        print(next(iter(client.consumer(topic, start="beginning"))).value.decode())
"""


def test_a_child_that_was_forked_before_may_connect(run: Run, topic: str) -> None:
    done = run(MULTIPROCESSING, topic)
    assert (done.stdout, done.returncode) == ("from a child\n", 0), done.stderr


ENDS = {
    "open": "pass",
    "waiting_thread": "import threading; threading.Thread(target=lambda: next(iter(consumer)), daemon=True).start()",
    "loop": "import asyncio; from millpond import aio; asyncio.run(main())",
    "sent": "[producer.send('x') for _ in range(1000)]",
    "exit": "sys.exit(0)",
}

END = """
import sys
import millpond
from millpond import aio
url, topic = sys.argv[1:]
client = millpond.connect(url)
producer, consumer = client.producer(topic), client.consumer(topic)
async def main():
    import asyncio
    c = await aio.connect(url)
    c.producer(topic).send("x")
    asyncio.ensure_future(c.consumer(topic).__anext__())
    await asyncio.sleep(0)
"""


@pytest.mark.parametrize("name", ENDS)
def test_the_interpreter_ends_with_clients_open(run: Run, topic: str, name: str) -> None:
    began = time.monotonic()
    done = run(f"{END}\n{ENDS[name]}", topic)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert time.monotonic() - began < 5


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_many_connects_leave_nothing_behind(shared: Broker, topic: str) -> None:
    def once() -> None:
        with millpond.connect(shared.url) as client:
            with client.producer(topic) as producer:
                producer.send("x").result(10)
            assert next(iter(client.consumer(topic, start="beginning"))).value == b"x"

    def after(rounds: int) -> int:
        for _ in range(rounds):
            once()
        gc.collect()
        return resident_kib()

    before = [after(60) for _ in range(4)]
    threads, sockets = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    behind = [after(60) for _ in range(4)]
    wait_until(lambda: _core.task_count() <= 8)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= sockets)
    assert len(os.listdir("/proc/self/task")) <= threads
    # The allocator keeps more or less of what was freed: what counts is that it does not grow on and on.
    assert min(behind) - max(before) < 4 * 1024, "KiB more for 240 connects"


def wait_until(holds: Callable[[], bool]) -> None:
    """Closing goes on behind the call for a moment."""
    turn = threading.Event()
    for _ in range(500):
        if holds():
            return
        turn.wait(0.01)
    assert holds()
