"""A broker for all tests, and a topic of its own for each."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

import millpond
from millpond.testing import Broker, broker

ROOT = Path(__file__).parents[2]

# The broker of the same build, unless another one is named.
os.environ.setdefault("MILLPOND_BIN", str(ROOT / "target" / "release" / "millpond"))

_numbers = itertools.count()


@pytest.fixture(scope="session")
def shared() -> Generator[Broker, None, None]:
    """A broker that nobody kills."""
    with broker() as running:
        yield running


@pytest.fixture
def own() -> Generator[Broker, None, None]:
    """A broker for one test, which may do to it what it likes."""
    with broker() as running:
        yield running


@pytest.fixture
def client(shared: Broker) -> Generator[millpond.Client, None, None]:
    """A client of the shared broker."""
    with millpond.connect(shared.url) as connected:
        yield connected


def new_topic(client: millpond.Client) -> str:
    """A topic with two partitions."""
    name = f"topic-{next(_numbers)}"
    client.admin.create_topic(name, partitions=2, durability="os")
    return name


@pytest.fixture
def topic(client: millpond.Client) -> str:
    """A topic with two partitions that nobody else uses."""
    return new_topic(client)


@pytest.fixture
def failing(client: millpond.Client) -> str:
    """Another one, whose module fails on every record."""
    topic = new_topic(client)
    client.admin.transforms.deploy(topic, ROOT / "plugins" / "dist" / "hostile.wasm")
    client.admin.transforms.attach(topic, topic, params={"mode": "trap"})
    return topic


@pytest.fixture
def run(shared: Broker) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a process of its own, with the broker's address and further arguments in ``sys.argv``."""

    def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, shared.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    return run_code
