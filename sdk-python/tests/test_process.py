"""Signals, forks, the end of the interpreter, and what is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
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


FORKED_LATE = """
import os, sys
import millpond
url, topic = sys.argv[1:]
millpond.connect(url).close()
child = os.fork()
if child == 0:
    try:
        millpond.connect(url)
    except millpond.ForkedError as error:
        os._exit(7 if "even if all is closed" in error.hint else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_that_was_forked_after_all_was_closed_is_told_why_it_cannot_connect(run: Run, topic: str) -> None:
    done = run(FORKED_LATE, topic)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


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


HANDLED = {
    # What waits, what the handler does, and how the wait ends.
    "close_iterate": ("next(iter(consumer))", "consumer.close()", "ClosedError"),
    "close_poll": ("consumer.poll(60)", "consumer.close()", "ClosedError"),
    "close_batches": ("next(consumer.batches(10, 60))", "consumer.close()", "ClosedError"),
    "close_client": ("next(iter(consumer))", "client.close()", "ClosedError"),
    "pause": ("next(iter(consumer)).value", "consumer.pause(); consumer.resume(); producer.send('x')", "b'x'"),
    "seek": ("next(iter(consumer)).value", "consumer.seek('beginning'); consumer.position(0); producer.send('x')", "b'x'"),
    "partitions": ("next(iter(consumer)).value", "consumer.partitions(); client.admin.topics(); producer.send('x')", "b'x'"),
    "poll": ("next(iter(consumer)).value", "consumer.poll(0.2); producer.send('x')", "b'x'"),
    "flush": ("late(); producer.flush()", "fails(producer.flush); thaw()", "None"),
    "result": ("late().result().offset", "fails(deliveries[0].result); thaw()", "0"),
    "close_flush": ("late(); producer.flush()", "fails(producer.close); thaw()", "None"),
    "close_close": ("late(); producer.close()", "fails(producer.close); thaw()", "None"),
    "many": ("freeze(); len(producer.send_many([b'x' * 1000] * 100_000).result())", "fails(producer.flush); thaw()", "100000"),
    "admin": ("freeze(); len(client.admin.topics())", "client.is_connected; consumer.close(); thaw()", "1"),
}

HANDLER = """
import ast, faulthandler, os, signal, threading
import millpond
from millpond.testing import broker as start_broker

with start_broker() as broker:
    client = millpond.connect(broker.url)
    client.admin.create_topic("t")
    producer, consumer = client.producer("t"), client.consumer("t")
    deliveries = []
    freeze, thaw = broker.freeze, broker.thaw
    def late():
        freeze()
        deliveries.append(producer.send("x"))
        return deliveries[0]
    def fails(wait):
        try:
            wait(0.2)
            print("it did not wait")
        except millpond.TimeoutError:
            pass
    def handle(*_):
        exec(ACTION)
        print("handled")
    signal.signal(signal.SIGUSR1, handle)
    # Whatever hangs ends the broker with it.
    ending = threading.Timer(10, lambda: (broker.kill(), faulthandler.dump_traceback(), os._exit(1)))
    ending.daemon = True
    ending.start()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    *before, last = ast.parse(WAIT).body
    try:
        exec(compile(ast.Module(before, []), "", "exec"))
        print(eval(compile(ast.Expression(last.value), "", "eval")))
    except millpond.MillpondError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("name", HANDLED)
def test_a_signal_handler_may_use_what_is_waited_for(name: str) -> None:
    wait, action, ends = HANDLED[name]
    code = f"WAIT, ACTION = {wait!r}, {action!r}\n{HANDLER}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == (f"handled\n{ends}\n", 0), done.stdout + done.stderr


THREADS = """
import faulthandler, sys, threading, time
import millpond
# A thread that waits for a lock with the GIL stops every other one, and the main thread with them: this one ends it without the GIL.
faulthandler.dump_traceback_later(15, exit=True)
sys.setswitchinterval(1e-6)
url, topic = sys.argv[1:]
with millpond.connect(url) as client:
    consumer = client.consumer(topic)
    consumer.close()
    raised = [0, 0, 0]
    def read(number):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                consumer.poll(0.1)
            except millpond.ClosedError:
                raised[number] += 1
    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(all(raised))
"""


def test_threads_that_share_a_consumer_do_not_stop_each_other(run: Run, topic: str) -> None:
    done = run(THREADS, topic)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


class Service:
    """Its producer and its consumer hold it, by its methods, and it holds them, and what came from them."""

    def __init__(self, client: millpond.Client, topic: str) -> None:
        self.producer = client.producer(topic, key=self.dumps, value=self.dumps)
        self.consumer = client.consumer(topic, key=self.loads, value=self.loads, start="beginning")
        self.producer.send("x", key="k").result(10)
        self.record = next(self.consumer)
        self.batch = next(client.consumer(topic, value=self.loads, start="beginning").batches())
        self.iterators = (iter(self.consumer), iter(self.batch))

    def dumps(self, value: str) -> str:
        return value

    def loads(self, data: bytes) -> str:
        return data.decode()


def test_objects_whose_methods_are_serializers_are_collected(client: millpond.Client, topic: str) -> None:
    gc.collect()
    before = _core.task_count()
    services = [Service(client, topic) for _ in range(30)]
    used = _core.task_count()
    alive = [weakref.ref(service) for service in services]
    del services
    gc.collect()
    assert [service() for service in alive] == [None] * 30
    # The client forgets producers that were dropped when it makes one.
    with client.producer(topic):
        wait_until(lambda: _core.task_count() <= before + 5)
    assert used > before + 60


def stopped(client: millpond.Client, own: Broker, error: BaseException) -> None:
    client.admin.create_topic("t", partitions=1, durability="os")
    with client, client.producer("t") as first:
        second = client.producer("t")
        own.freeze()
        first.send("x")
        second.send("y")
        raise error


def test_who_wants_to_stop_does_not_wait_for_answers(own: Broker) -> None:
    error = KeyboardInterrupt()
    began = time.monotonic()
    with pytest.raises(type(error)) as raised:
        stopped(millpond.connect(own.url), own, error)
    assert raised.value is error
    # 5 seconds for each producer, where the block has failed.
    assert time.monotonic() - began < 4
    own.kill()


@pytest.mark.parametrize("opened", ["client", "producer"])
def test_a_second_ctrl_c_ends_the_wait_of_the_first(own: Broker, monkeypatch: pytest.MonkeyPatch, opened: str) -> None:
    monkeypatch.setattr("millpond._states.CLOSE_TIMEOUT_AFTER_STOP", 60.0)
    client = millpond.connect(own.url)
    client.admin.create_topic("t", partitions=1, durability="os")
    producer = client.producer("t")
    own.freeze()
    producer.send("x")
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as raised, client if opened == "client" else producer:
        raise KeyboardInterrupt("first")
    assert str(raised.value) == "" and time.monotonic() - began < 10
    own.kill()
