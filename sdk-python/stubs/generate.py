"""Makes the type stub of the native module, `python/millpond/_core.pyi`, out of what Rust says and what it cannot say.

    library with the feature "signatures"        overlay.pyi
                   |                                  |
                   | pyo3-introspection               |
                   v                                  v
      names, parameters, defaults, documentation  +  type parameters, overloads, types of Python's own
                                    \\               /
                                   python/millpond/_core.pyi

Rust decides what there is: an entry of the overlay for something that Rust does not have, or with other parameters, is an error. So is whatever stays
without a type: a signature where Rust says "any object" needs an entry in the overlay, which may say so too.

    python stubs/generate.py LIBRARY            writes the stub
    python stubs/generate.py LIBRARY --check    fails where it is not what it would write
"""

import argparse
import ast
import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
STUB = HERE.parent / "python" / "millpond" / "_core.pyi"
HEADER = "# Made of the signatures in src/ and of stubs/overlay.pyi by stubs/generate.py; changes belong there.\n\n"
# Parameters that are the same wherever they occur.
PARAMETERS = {"future": "Future[Any]"}
# What Rust has by an option of its macros, and does not tell.
UNTOLD = {"__class_getitem__"}
# Hints that say nothing.
EMPTY = {"Any", "Incomplete", "dict", "list", "tuple", "type"}

Function = ast.FunctionDef
Body = list[ast.stmt]


class Wrong(Exception):
    """Rust and the overlay do not agree."""


def introspected(library: str) -> ast.Module:
    """The stub that Rust's signatures give alone."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["pyo3-introspection", library, "_core", folder], check=True)
        return ast.parse((Path(folder) / "__init__.pyi").read_text())


def parameters(function: Function) -> list[ast.arg]:
    """All of them but self and cls."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return every[1:] if every and every[0].arg in ("self", "cls") else every


def is_overload(function: Function) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in function.decorator_list)


def is_empty(hint: ast.expr | None) -> bool:
    """Whether a hint says nothing, in some part of it."""
    if hint is None:
        return True
    if isinstance(hint, ast.Subscript):
        of = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        return any(is_empty(part) for part in of)
    if isinstance(hint, ast.BinOp):
        return is_empty(hint.left) or is_empty(hint.right)
    return isinstance(hint, ast.Name) and hint.id in EMPTY


def combined(name: str, told: Function, entries: list[Function]) -> list[Function]:
    """A function of Rust's with the types of the overlay."""
    names = [parameter.arg for parameter in parameters(told)]
    for entry in entries:
        own = [parameter.arg for parameter in parameters(entry)]
        if own != (names[: len(own)] if is_overload(entry) else names):
            raise Wrong(f"{name}: the overlay has the parameters ({', '.join(own)}), and Rust has ({', '.join(names)})")
        if not is_overload(entry) and ast.dump(ast.Tuple([*entry.args.defaults])) != ast.dump(ast.Tuple([*told.args.defaults])):
            raise Wrong(f"{name}: the overlay has other defaults than Rust")
    for parameter in parameters(told):
        if parameter.arg in PARAMETERS:
            parameter.annotation = ast.parse(PARAMETERS[parameter.arg], mode="eval").body
    if not entries:
        hints = [told.returns, *(parameter.annotation for parameter in parameters(told) if parameter.arg not in PARAMETERS)]
        if any(is_empty(hint) for hint in hints):
            raise Wrong(f"{name}: Rust has no type for some of it, so stubs/overlay.pyi has to say more than\n    {ast.unparse(told).splitlines()[0]}")
        return [told]
    # Documentation is Rust's, and stands at the last of several.
    documented = ast.get_docstring(told) is not None
    if documented:
        entries[-1].body = told.body
    return entries


def functions_of(body: Body) -> dict[str, list[Function]]:
    found: dict[str, list[Function]] = {}
    for statement in body:
        if isinstance(statement, Function):
            found.setdefault(statement.name, []).append(statement)
    return found


def merged(place: str, told: Body, overlay: Body) -> Iterator[ast.stmt]:
    """The members of a module or a class."""
    entries = functions_of(overlay)
    for statement in told:
        if isinstance(statement, Function):
            yield from combined(place + statement.name, statement, entries.pop(statement.name, []))
        else:
            yield statement
    for name, added in entries.items():
        if name not in UNTOLD:
            raise Wrong(f"{place}{name} is in the overlay, and not in Rust")
        yield from added


def imported(*modules: ast.Module) -> Body:
    """What both import, each module once. What only says that nothing is known was replaced."""
    names: dict[str, set[str]] = {}
    for module in modules:
        for statement in module.body:
            if isinstance(statement, ast.ImportFrom) and statement.module and statement.module != "_typeshed":
                names.setdefault(statement.module, set()).update(alias.name for alias in statement.names)
    return [ast.ImportFrom(module, [ast.alias(name) for name in sorted(names[module])], 0) for module in sorted(names)]


def stub(told: ast.Module, overlay: ast.Module) -> str:
    """The whole stub."""
    classes = {statement.name: statement for statement in overlay.body if isinstance(statement, ast.ClassDef)}
    variables = [statement for statement in overlay.body if isinstance(statement, ast.Assign)]
    members: Body = []
    for statement in merged("", told.body[1:], [entry for entry in overlay.body if isinstance(entry, Function)]):
        if isinstance(statement, ast.ClassDef):
            entry = classes.pop(statement.name, None)
            statement.bases += entry.bases if entry else []
            statement.body = list(merged(f"{statement.name}.", statement.body, entry.body if entry else []))
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            members.append(statement)
    for name in classes:
        raise Wrong(f"the class {name} is in the overlay, and not in Rust")
    made = ast.Module([told.body[0], *imported(told, overlay), *variables, *members], [])
    text = ast.unparse(ast.fix_missing_locations(made))
    # As stubs are written: what has no documentation on one line, and documentation without room around it.
    text = re.sub(r":\n +\.\.\.\n", ": ...\n", text + "\n")
    return HEADER + re.sub(r'"""\n\s*((?:.|\n)*?)\n\s*"""', r'"""\1"""', text)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Makes the type stub of the native module.")
    arguments.add_argument("library", help="the native module, built with the feature `signatures` and not stripped")
    arguments.add_argument("--check", action="store_true", help="only say whether the stub is what it should be")
    given = arguments.parse_args()
    try:
        wanted = stub(introspected(given.library), ast.parse((HERE / "overlay.pyi").read_text()))
    except Wrong as wrong:
        sys.exit(f"error: {wrong}")
    found = STUB.read_text() if STUB.exists() else ""
    if not given.check:
        STUB.write_text(wanted)
    # Releases of Python write the same tree with other spaces.
    elif ast.dump(ast.parse(wanted)) != ast.dump(ast.parse(found)):
        sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), str(STUB), "as src/ has it"))
        sys.exit("error: the stub is not what src/ has: sdk-python/check.sh --stubs writes it anew")


if __name__ == "__main__":
    main()
