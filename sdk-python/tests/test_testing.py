"""The broker for tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import millpond
from millpond.testing import BrokerError, broker, find_binary


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
