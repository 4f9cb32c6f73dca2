"""The examples, run as anybody would run them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import millpond
from millpond.testing import broker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "sdk-python" / "examples"


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    """Of a broker whose topics have the names of the examples."""
    with broker() as running:
        yield running.url


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert all(f"def test_{example.stem}(" in text for example in EXAMPLES.glob("*.py"))


def test_produce_and_consume(url: str) -> None:
    lines = run("produce_and_consume", url)
    assert lines[0].startswith("the last one is at partition") and len(lines) == 1 + 4 + 7
    assert sum("b'async" in line for line in lines) == 3


def test_start_at_a_time(url: str) -> None:
    lines = run("start_at_a_time", url)
    assert lines[0] == "2026-01-01T21:00:00+00:00 b'opened in hour 21'" and len(lines) == 4 and lines[3] == "back at offset 0"


def test_headers_and_keys(url: str) -> None:
    lines = run("headers_and_keys", url)
    assert "device-1 reading 1 b'C' [('unit', b'C'), ('trace', b'0001')]" in lines
    assert "device-0 None None []" in lines and lines[-1] == "device-2 is in 1 partition"


def test_json_models(url: str) -> None:
    lines = run("json_models", url)
    assert lines == ["device-7: 21.4 ", "device-8: 19.9 window open", "bad: b'this is no reading' b'decode_failed'"]


def test_deploy_a_transform(url: str) -> None:
    lines = run("deploy_a_transform", url, str(ROOT / "plugins" / "dist" / "drop-idle.wasm"))
    assert lines[0].startswith("drop-idle version 1, transform")
    assert lines[1] == "4 of 8 records are kept" and lines[2] == "in 8, dropped 4, failures 0"


def test_pause_and_resume(url: str) -> None:
    assert run("pause_and_resume", url) == [
        "while partition 0 is paused: [b'job 1', b'job 3', b'job 5']",
        "it waits at offset 0",
        "afterwards: [b'job 0', b'job 2', b'job 4']",
    ]


def test_graceful_shutdown(url: str) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic("orders")
        client.admin.create_topic("receipts")
        client.producer("orders").send_many(["order"] * 500).result(10)
        command = [sys.executable, str(EXAMPLES / "graceful_shutdown.py"), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            receipts = iter(client.consumer("receipts", start="beginning"))
            for _ in range(500):
                next(receipts)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=20)
        assert (said, process.returncode) == ("500 orders are done, next is offset 500\n", 0)


def test_load_csv(url: str, tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("device,celsius\n" + "".join(f"d{number % 10},{number}\n" for number in range(20_000)))
    assert run("load_csv", url, str(path), "csv", "device") == ["20000 records are stored in csv"]
    with millpond.connect(url) as client:
        first = next(iter(client.consumer("csv", start="beginning", key=millpond.string, value=millpond.json)))
        assert (first.key, first.value) == ("d0", {"device": "d0", "celsius": "0"})
