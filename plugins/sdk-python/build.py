"""Makes a module of a guest: python3 build.py GUEST.py MODULE.wasm [WORLD]

The world is transform, partitioner, derive, stateful-transform or stateful-derive, as in plugin.wit; without one it is transform.

componentize-py, which must be installed for this Python, puts CPython, its standard library and the guest into a component and starts them
once at build time, so that an instance begins with everything imported. WASI is cut off: whatever asks for a clock or a file traps, and
what a guest is likely to ask for is answered in words before.
"""

import pathlib
import subprocess
import sys
import tempfile

SDK = pathlib.Path(__file__).resolve().parent

# What each world calls.
FUNCTIONS = {
    "transform": "transform",
    "partitioner": "partition",
    "derive": "derive",
    "stateful-transform": "transform",
    "stateful-derive": "derive",
}

ENTRY = '''
import builtins, random, sys, time
import wit_world
from wit_world.imports import log as host, types
from componentize_py_types import Err
from millpond_guest import Contract, Failed, exported, log
import GUEST
STATE

LEVELS = {"debug": host.Level.DEBUG, "info": host.Level.INFO, "warn": host.Level.WARN, "error": host.Level.ERROR}
log.write = lambda level, message: host.log(LEVELS[level], message)


class Lines:
    def __init__(self, write):
        self.write_line, self.rest = write, ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\\n")
        for line in lines:
            self.write_line(line)
        return len(text)

    def flush(self):
        pass


def missing(what):
    def refuse(*_args, **_kwargs):
        raise ValueError(f"a module has no {what}: the same records must give the same answer")

    return refuse


class NotLoaded:
    @staticmethod
    def find_spec(name, path=None, target=None):
        raise ImportError(f"`{name}` was not loaded when the module was built: import it at the top of a file")


def seal():
    sys.stdout, sys.stderr = Lines(log.info), Lines(log.error)
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep", "localtime", "gmtime"):
        setattr(time, name, missing("clock"))
    for name in ("random", "randint", "randrange", "choice", "choices", "shuffle", "uniform", "getrandbits", "sample", "gauss"):
        setattr(random, name, missing("random numbers"))
    builtins.open = missing("files")
    sys.meta_path.append(NotLoaded)
    sys.path.clear()
    sys.path_importer_cache.clear()


contract = Contract(exported("FUNCTION"))


class WitWorld(wit_world.WitWorld):
    def init(self, *arguments):
        seal()
        try:
            contract.init(*arguments)
        except Failed as failed:
            raise Err(failed.message)

    def FUNCTION(self, *arguments):
        try:
            return contract.FUNCTION(*arguments)
        except Failed as failed:
            raise Err(types.Failure(failed.message, failed.record_index))
'''

# Stands where STATE does in a world that has one.
STATE = '''
from wit_world.imports import state as kept
from millpond_guest import state


class Store:
    get, delete, scan = map(staticmethod, (kept.get, kept.delete, kept.scan))

    @staticmethod
    def put(key, value):
        try:
            kept.put(key, value)
        except Err as refused:
            raise ValueError(refused.value) from None


state.store = Store
'''


def wit_folder():
    """The contract, which lies beside the SDK in this repository and in it in a project."""
    for folder in (SDK, SDK.parent / "wit"):
        if (folder / "plugin.wit").exists():
            return folder
    sys.exit(f"error: plugin.wit is missing in {SDK}")


def main():
    if not 3 <= len(sys.argv) <= 4 or (sys.argv[3:] or ["transform"])[0] not in FUNCTIONS:
        sys.exit(f"usage: python3 build.py GUEST.py MODULE.wasm [{'|'.join(FUNCTIONS)}]")
    guest, module = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    world = (sys.argv[3:] or ["transform"])[0]
    tool = pathlib.Path(sys.executable).parent / "componentize-py"
    if not tool.exists():
        sys.exit(f"error: componentize-py is not installed: run '{sys.executable} -m pip install -r {SDK}/requirements.txt'")
    module.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text = ENTRY.replace("STATE", STATE if world.startswith("stateful-") else "")
        text = text.replace("GUEST", guest.stem).replace("FUNCTION", FUNCTIONS[world])
        (pathlib.Path(folder) / "millpond_entry.py").write_text(text)
        command = [tool, "-d", wit_folder(), "-w", world, "componentize", "--stub-wasi"]
        for path in (folder, SDK, guest.parent):
            command += ["-p", path]
        built = subprocess.run([*command, "-o", module, "millpond_entry"], capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(built.stdout + built.stderr)


main()
