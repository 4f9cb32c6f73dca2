"""A real broker for tests.

::

    def test_something() -> None:
        with millpond.testing.broker() as broker, millpond.connect(broker.url) as client:
            ...

It runs the binary ``millpond`` in a process of its own, in a temporary folder, on free ports of the loopback address, and is killed at the
end. The binary is the one that the environment names (``MILLPOND_BIN``), the one in this package, or the one in the ``PATH``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

from millpond._options import checked_params
from millpond._records import NewRecord, check_many
from millpond._times import from_ms, to_ms
from millpond._requests import module_bytes
from millpond.errors import MillpondError, TransformError, WrongTypeError
from millpond.serde import Encoded

__all__ = ["Broker", "BrokerError", "Transformed", "broker", "find_binary", "run_transform"]


LOG_LINES_MAX = 1_000
"""Lines of a broker's log that are kept."""

STOP_TIMEOUT = 30.0
"""Seconds that a planned stop may take."""


class BrokerError(MillpondError, RuntimeError):
    """A broker for tests could not be started, or the binary is not there."""


def find_binary() -> Path:
    """The broker's binary; raises `BrokerError` where there is none."""
    named = os.environ.get("MILLPOND_BIN")
    if named:
        if not Path(named).is_file():
            raise BrokerError(f"MILLPOND_BIN names {named}, and there is no such file", code="broker_missing")
        return Path(named)
    bundled = Path(__file__).parent / "bin" / "millpond"
    if bundled.is_file():
        return bundled
    found = shutil.which("millpond")
    if found is None:
        raise BrokerError(
            "the binary `millpond` is not found: it is not in the PATH, and MILLPOND_BIN does not name it",
            code="broker_missing",
            hint="set MILLPOND_BIN to its path; in Millpond's repository `make build` builds it to target/release/millpond",
        )
    return Path(found)


class Broker:
    """A broker in a process of its own. From `broker`."""

    url: str
    """Its address, with the fingerprint of its certificate."""
    data_dir: Path
    """Its data folder."""

    def __init__(self, binary: Path, folder: Path, arguments: Sequence[str]) -> None:
        """From `broker`."""
        self.data_dir = folder / "data"
        self._binary = binary
        self._folder = folder
        self._arguments = list(arguments)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[str] = []
        self.start()

    def start(self) -> None:
        """Starts it again, after `kill` or `stop` or where it has ended by itself: on the same folder and port."""
        if self.is_running:
            return
        self._end()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLPOND_")}
        environment["XDG_STATE_HOME"] = str(self._folder / "state")
        command = [str(self._binary), "serve", "--data-dir", str(self.data_dir)]
        command += ["--quic-listen", f"127.0.0.1:{self._port}", "--kafka-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        # The pipe ends with this process, however that ends, and the broker with the pipe.
        command.append("--stop-with-stdin")
        piped = subprocess.PIPE
        try:
            process = subprocess.Popen(command + self._arguments, env=environment, stdin=piped, stdout=piped, stderr=piped)
        except OSError as error:
            raise BrokerError(f"{self._binary} cannot be run: {error.strerror}", code="broker_missing") from error
        assert process.stdout is not None and process.stderr is not None
        reader = threading.Thread(target=self._read, args=(process.stderr,), name="millpond-broker-log", daemon=True)
        reader.start()
        self._process = process
        url = process.stdout.readline().decode().strip()
        if not url.startswith("millpond://"):
            self.kill()
            reader.join()
            said = "\n".join(self._log[-20:])
            raise BrokerError(f"the broker did not start; it said:\n{said}", code="broker_failed")
        self.url = url

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._log.append(line.decode(errors="replace").rstrip())
                del self._log[:-LOG_LINES_MAX]

    @property
    def log(self) -> str:
        """The last lines that it has logged."""
        return "\n".join(self._log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise BrokerError("the broker is not running", code="broker_stopped", hint="start() starts it again")
        return self._process

    def __repr__(self) -> str:
        return f"<millpond.testing.Broker {self.url}{'' if self.is_running else ' stopped'}>"

    def kill(self) -> None:
        """Kills it, as a power cut would (``kill -9``)."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def stop(self) -> None:
        """Asks it to stop, and waits until it has. One that stands still goes on before."""
        if self._process is not None:
            # Does nothing where it has ended already.
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                message = f"the broker did not stop within {STOP_TIMEOUT:.0f} s, and was killed"
                raise BrokerError(message, code="broker_failed", hint="its log says what it was doing") from None
            finally:
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()

    def freeze(self) -> None:
        """Lets it stand still (SIGSTOP), and waits until it does."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Lets it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def broker(*arguments: str, binary: str | os.PathLike[str] | None = None) -> Generator[Broker, None, None]:
    """A broker in a temporary folder, which is killed at the end. ``arguments`` go to ``millpond serve``."""
    path = find_binary() if binary is None else Path(binary)
    with tempfile.TemporaryDirectory(prefix="millpond-") as folder:
        running = Broker(path, Path(folder), arguments)
        try:
            yield running
        finally:
            running.kill()


@dataclass(frozen=True)
class Transformed:
    """A record as a module has made it."""

    topic: str
    """The topic: that of the test, or one that the module derives into."""
    key: bytes | None
    """The key."""
    value: bytes | None
    """The value."""
    headers: list[tuple[str, bytes | None]]
    """The headers."""
    timestamp: datetime
    """The timestamp."""


def run_transform(
    module: bytes | bytearray | str | Path,
    records: Iterable[NewRecord[Encoded, Encoded] | Encoded],
    *,
    params: Mapping[str, str] | None = None,
    into: Sequence[str] = (),
    state_bytes: int | None = None,
    on_error: Literal["reject", "skip"] = "reject",
) -> list[Transformed]:
    """Runs a WebAssembly module on records as a broker would, in the same host and under the same limits, and gives what comes out. No broker
    is asked. ``into`` names the topics of a module that derives, ``state_bytes`` is what it may keep. Raises `TransformError` where the module fails;
    with ``on_error="skip"`` the records on which it does are left out."""
    check_many(records, "test")
    given = checked_params(params)
    with tempfile.TemporaryDirectory(prefix="millpond-") as folder:
        wasm, lines = Path(folder, "module.wasm"), Path(folder, "records.jsonl")
        wasm.write_bytes(module_bytes(module))
        lines.write_text("".join(json.dumps(_line(record)) + "\n" for record in records))
        command = [str(find_binary()), "transform", "test", str(wasm), "--input", str(lines), "-o", "jsonl"]
        for name, value in given.items():
            command += ["--param", f"{name}={value}"]
        if into:
            command += ["--into", ",".join(into)]
        if on_error != "reject":
            command += ["--on-error", on_error]
        if state_bytes is not None:
            command += ["--state-bytes", str(state_bytes)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        # The files are gone by now: only their names say something.
        raise _failure(done.stderr.decode(errors="replace").replace(f"{folder}{os.sep}", "").strip())
    return [_transformed(json.loads(line)) for line in done.stdout.splitlines()]


def _failure(said: str) -> TransformError:
    """What the command says as it fails: lines about the module and of its log, then the error with its causes, then a hint."""
    before, found, error = f"\n{said}".rpartition("\nerror: ")
    message, _, hint = error.partition("\nhint: ")
    message = message.strip()
    # The first line says how long it took to compile.
    logged = before.strip().splitlines()[1:] if found else []
    if logged:
        message += "\n  it logged:" + "".join(f"\n    {line}" for line in logged)
    return TransformError(message, code="guest_failed", hint=hint or None)


def _line(record: NewRecord[Encoded, Encoded] | Encoded) -> dict[str, Any]:
    """A record as a line of JSON."""
    new = record if isinstance(record, NewRecord) else NewRecord[Encoded, Encoded](value=record)
    line: dict[str, Any] = {"key_base64": _text("key", new.key), "value_base64": _text("value", new.value)}
    line = {name if part is not None else name.removesuffix("_base64"): part for name, part in line.items()}
    given: Any = new.headers or ()
    headers: dict[str, list[Any]] = {}
    try:
        pairs: list[tuple[Any, Any]] = [(name, value) for name, value in (given.items() if hasattr(given, "items") else given)]
    except (TypeError, ValueError):
        hint = 'as in headers={"unit": "C"} or headers=[("unit", b"C")]'
        raise WrongTypeError("headers are a dict, or pairs of a name and a value", code="wrong_type", hint=hint) from None
    for name, value in pairs:
        if not isinstance(name, str):
            raise WrongTypeError(f"the name of a header is of type {type(name).__name__}: it is str", code="wrong_type")
        headers.setdefault(name, []).append(None if value is None else {"base64": _text("value of a header", value)})
    line["headers"] = headers
    if new.timestamp is not None:
        line["timestamp"] = to_ms(new.timestamp)
    return line


def _text(what: str, part: Any) -> str | None:
    if part is None:
        return None
    if not isinstance(part, (str, bytes, bytearray, memoryview)):
        hint = "a module gets bytes: give those that the producer's serializer makes, as in json.dumps(value)"
        raise WrongTypeError(f"the {what} is of type {type(part).__name__}: it is bytes, str or None", code="wrong_type", hint=hint)
    return base64.b64encode(part.encode() if isinstance(part, str) else bytes(cast(bytes, part))).decode()


def _transformed(line: dict[str, Any]) -> Transformed:
    """A record from a line of JSON."""

    def part(name: str) -> bytes | None:
        encoded = line.get(f"{name}_base64")
        return base64.b64decode(encoded) if encoded is not None else _header(line.get(name))

    headers: list[tuple[str, bytes | None]] = []
    for name, values in line["headers"].items():
        headers += [(name, _header(value)) for value in _several(values)]
    return Transformed(line["topic"], part("key"), part("value"), headers, from_ms(line["timestamp"]))


def _several(values: Any) -> Iterable[Any]:
    return values if isinstance(values, list) else [values]  # pyright: ignore[reportUnknownVariableType]


def _header(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port: int = udp.getsockname()[1]
        return port
