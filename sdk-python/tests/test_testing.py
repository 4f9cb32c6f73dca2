"""The broker for tests."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest

import millpond
from millpond import NewRecord
from millpond.serde import Encoded
from millpond.testing import BrokerError, broker, find_binary, run_transform


def test_a_broker_keeps_what_it_has_and_leaves_nothing() -> None:
    with broker() as running:
        folder = running.data_dir
        with millpond.connect(running.url) as client:
            client.admin.create_topic("t")
            client.producer("t").send("kept").result(10)
        pid = running.pid
        running.kill()
        running.kill()
        with pytest.raises(BrokerError, match="is not running"):
            running.freeze()
        running.start()
        with millpond.connect(running.url) as client:
            assert next(iter(client.consumer("t", start="beginning"))).value == b"kept"
        assert running.pid != pid and running.log
    assert not folder.exists()


def test_a_broker_ends_with_a_program_that_is_killed() -> None:
    script = "import os, signal, millpond.testing\nwith millpond.testing.broker() as b: print(b.pid, b.data_dir.parent, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout.split()
    # A handle to the process, as its number could be another's by now.
    try:
        handle = os.pidfd_open(int(told[0]))
    except ProcessLookupError:
        handle = None
    if handle is not None:
        ready, _, _ = select.select([handle], [], [], 20)
        os.close(handle)
        assert ready, "the broker has ended"
    shutil.rmtree(told[1])


def test_a_broker_that_does_not_start_says_why() -> None:
    with pytest.raises(BrokerError, match="--no-such-flag"), broker("--no-such-flag"):
        pass


def test_a_binary_that_is_not_there_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLPOND_BIN", str(tmp_path / "none"))
    with pytest.raises(BrokerError, match="no such file"):
        find_binary()
    monkeypatch.delenv("MILLPOND_BIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError) as raised:
        find_binary()
    assert raised.value.code == "broker_missing" and "MILLPOND_BIN" in (raised.value.hint or "")
    (tmp_path / "millpond").touch(mode=0o755)
    assert find_binary() == tmp_path / "millpond" and os.access(find_binary(), os.X_OK)


def test_a_module_is_tried_without_a_broker() -> None:
    dist = Path(__file__).parents[2] / "plugins" / "dist"
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    sent: list[NewRecord[Encoded, Encoded] | Encoded] = [
        NewRecord[Encoded, Encoded](value=b"\xff\x00", key="k", headers=[("h", "1"), ("h", None), ("b", b"\xfe")], timestamp=at),
        NewRecord[Encoded, Encoded](value=None, key=b"gone"),
        "text",
    ]
    came = run_transform(dist / "identity.wasm", sent)
    assert [(record.key, record.value) for record in came] == [(b"k", b"\xff\x00"), (b"gone", None), (None, b"text")]
    assert came[0].timestamp == at and came[0].headers == [("h", b"1"), ("h", None), ("b", b"\xfe")]
    with pytest.raises(millpond.TransformError):
        run_transform(dist / "hostile.wasm", ["x"], params={"mode": "trap"})


def test_a_frozen_broker_is_stopped_and_killed() -> None:
    with broker() as running:
        for end in (running.stop, running.kill):
            running.freeze()
            pid = running.pid
            end()
            assert not Path(f"/proc/{pid}").exists()
            running.start()


def test_a_broker_that_ended_by_itself_is_started_again() -> None:
    with broker() as running:
        pid = running.pid
        os.kill(pid, signal.SIGKILL)
        # Until it is dead, and nobody has taken note of it.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(BrokerError, match="is not running"):
            running.freeze()
        running.start()
        with millpond.connect(running.url) as client:
            assert client.admin.topics() == []
        os.kill(running.pid, signal.SIGKILL)
        running.stop()
        running.start()
        assert running.is_running


NO_RECORDS: list[tuple[Any, dict[str, Any], str]] = [
    ([3], {}, "the value is of type int"),
    ([NewRecord("x", key=cast(Any, 3))], {}, "the key is of type int"),
    ([NewRecord("x", headers=cast(Any, {"a": 2}))], {}, "value of a header is of type int"),
    ([NewRecord("x", headers=cast(Any, {2: "a"}))], {}, "name of a header is of type int"),
    ([NewRecord("x", headers=cast(Any, ["a"]))], {}, "headers are a dict, or pairs"),
    ("text", {}, "takes an iterable of records, and str is one record"),
    (5, {}, "takes an iterable of records"),
    (["x"], {"params": ["a"]}, "params is a dict of names to text, not list"),
    (["x"], {"params": {"a": 2}}, "params cannot have 'a': 2"),
]


@pytest.mark.parametrize(("records", "settings", "said"), NO_RECORDS)
def test_what_is_no_record_for_a_module(records: Any, settings: Any, said: str) -> None:
    with pytest.raises(millpond.WrongTypeError, match=said):
        run_transform(Path(__file__).parents[2] / "plugins" / "dist" / "identity.wasm", records, **settings)
