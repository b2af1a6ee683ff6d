"""Where the generated service touches what a new version of Litestar, uvicorn or websockets may change without a word.

Private parts of Litestar stand in `internals.py`, those of uvicorn and websockets in `server/`. A touch elsewhere
fails, and so does an entry that no file needs any more: then look at what the new version does, and at the file. Names
are found in the code, in texts and, by the types that mypy knows, on objects of others. No module of the package
imports another in a circle, and the user's files import public names alone.
"""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .rendering import ROOT, Renders, environment

EVERYTHING = {"auth": "jwt", "fanout": "redis", "telemetry": "opentelemetry"}

PRIVATE = {
    "realtime/internals.py": {
        "_connection_lifespan",
        "_decoder",
        "_fn",
        "_receive_mode",
        "_send_mode",
        "litestar._asgi.utils",
    },
    "realtime/server/drain.py": {"_exit"},  # of `os`, and documented
    "realtime/server/websocket_protocol.py": {"uvicorn._types"},
    "realtime/testing/dialogue.py": {"_exit"},
    "realtime/testing/leftovers.py": {"_set_result_unless_cancelled"},  # of `asyncio`: the timer of a sleep
}
"""Names of others that begin with an underscore, in code or in a text."""

DOCUMENTED_DUNDERS = {
    "__annotations__",
    "__await__",
    "__call__",
    "__cause__",
    "__class__",
    "__code__",
    "__dict__",
    "__doc__",
    "__enter__",
    "__get__",
    "__hash__",
    "__init__",
    "__main__",
    "__module__",
    "__mro__",
    "__name__",
    "__qualname__",
    "__self__",
    "__setattr__",
    "__signature__",
    "__struct_config__",
    "__struct_encode_fields__",
    "__struct_fields__",
    "__traceback__",
    "__value__",
    "__weakref__",
}
"""Attributes of Python's and msgspec's documented data model. Cells of a closure are not among them."""

OF_LITESTAR = {
    "litestar.di.Provide.parsed_fn_signature": {"realtime/internals.py"},
    "litestar.di.Provide.signature_model": {"realtime/internals.py"},
    "litestar.handlers.base.BaseRouteHandler.fn": {"realtime/internals.py", "realtime/testing/cleanup.py"},
    "litestar.handlers.base.BaseRouteHandler.parsed_fn_signature": {"realtime/internals.py"},
    "litestar.handlers.base.BaseRouteHandler.signature_model": {"realtime/internals.py"},
    "litestar.routes.websocket.WebSocketRoute.handler_parameter_model": {"realtime/internals.py"},
}
"""What Litestar does not describe in its documentation, or describes as its own affair, and the files that use it."""

IN_TESTS = "realtime/testing/cleanup.py"
"""Serves an application in the event loop of a test, with a client that breaks the protocol."""

OF_SERVERS = re.compile(r"websockets\.frames\.(CloseCode|Opcode)(\.[A-Z_]+)?|websockets\.sync\.client\..+")
"""What may be used of uvicorn and websockets outside of `server/`: what they document."""

MOVING = {
    "litestar.channels": set[str](),
    "litestar.handlers.websocket_handlers": {
        "realtime/checks/registration.py",
        "realtime/handlers/listener.py",
        "realtime/handlers/messages.py",
        "realtime/internals.py",
        "realtime/sessions/fast_path.py",
    },
    "litestar.plugins.opentelemetry": {"realtime/observability/telemetry.py"},
    "litestar.routes": {
        "realtime/asyncapi/channels.py",
        "realtime/commands/client.py",
        "realtime/commands/routes.py",
        "realtime/handlers/listener.py",
        "realtime/internals.py",
        "realtime/plugin.py",
        "realtime/testing/cleanup.py",
        "realtime/testing/strategies.py",
    },
    "litestar.security": {
        "realtime/auth/authenticator.py",
        "realtime/auth/handshake.py",
        "realtime/auth/plugin.py",
    },
    "litestar.types.asgi_types": {
        "realtime/handlers/listener.py",
        "realtime/internals.py",
    },
    "litestar.typing": {
        "realtime/asyncapi/channels.py",
        "realtime/checks/registration.py",
        "realtime/commands/client.py",
        "realtime/handlers/listener.py",
        "realtime/internals.py",
    },
}
"""Modules that Litestar 3 moves or rewrites, and the files that may import them."""

HEAVY = (
    "cryptography",
    "httpx",
    "jwt",
    "opentelemetry",
    "polyfactory",
    "prometheus_client",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "pytest",
    "redis",
    "rich",
)
"""Packages whose types are not needed here, and take mypy four times as long."""

Trees = dict[str, ast.Module]


@pytest.fixture(scope="module")
def project(renders: Renders) -> Path:
    """A project with all there is."""
    return renders.of(**EVERYTHING)


@pytest.fixture(scope="module")
def trees(project: Path) -> Trees:
    package = project / "src" / "my_service"
    files = sorted(package.rglob("*.py"))
    return {file.relative_to(package).as_posix(): ast.parse(file.read_text("utf-8")) for file in files}


@pytest.fixture(scope="module")
def touches(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What the package uses of Litestar, uvicorn and websockets, and the files that do."""
    folder = tmp_path_factory.mktemp("touches")
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in HEAVY)
    (folder / "mypy.ini").write_text(f"[mypy]\nplugins = {ROOT / 'tests' / 'touches.py'}\n{skipped}")
    (folder / "touches").touch()
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(folder / "mypy.ini"),
        "--cache-dir",
        os.devnull,
        "src",
    ]
    variables = environment(project) | {"TOUCHES": str(folder / "touches")}
    subprocess.run(command, cwd=project, env=variables, check=False, capture_output=True, timeout=240)
    found: dict[str, set[str]] = defaultdict(set)
    for line in (folder / "touches").read_text().splitlines():
        file, name = line.split("\t")
        if "my_service/" in file:
            found[name].add(file.partition("my_service/")[2])
    return found


def by_file(trees: Trees, find: Callable[[ast.Module], Iterator[str]]) -> dict[str, set[str]]:
    found = {name: set(find(tree)) for name, tree in trees.items()}
    return {name: names for name, names in found.items() if names}


def is_dunder(name: str) -> bool:
    return re.fullmatch(r"__\w+__", name) is not None


def is_private(name: str) -> bool:
    return any(re.match(r"_+[A-Za-z]", part) and not is_dunder(part) for part in name.split("."))


def own_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, value=ast.Name(id="self"), ctx=ast.Store()):
                yield name
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.Constant(value=str(name))) if key.endswith("_KEY"):
                yield name  # in the state of a socket
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield each attribute, each module that is imported, and each text that could be the name of one."""
    fragments = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name):
                yield name
            case ast.Constant(value=str(text)) if id(node) not in fragments and re.fullmatch(r"[A-Za-z_][\w.]*", text):
                yield text
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield from {module, *(alias.name for alias in names)}
            case ast.Import(names=names):
                yield from (alias.name for alias in names)


def test_private_names_are_touched_where_it_is_known(trees: Trees) -> None:
    own = {name for tree in trees.values() for name in own_names(tree)}

    def private(tree: ast.Module) -> Iterator[str]:
        return (name for name in names_in(tree) if is_private(name) and name not in own)

    assert by_file(trees, private) == PRIVATE


def test_of_pythons_data_model_only_what_is_documented_is_touched(trees: Trees) -> None:
    def undocumented(tree: ast.Module) -> Iterator[str]:
        return (name for name in names_in(tree) if is_dunder(name) and name not in DOCUMENTED_DUNDERS)

    assert by_file(trees, undocumented) == {}
    assert {name for tree in trees.values() for name in names_in(tree) if is_dunder(name)} == DOCUMENTED_DUNDERS


def test_private_parts_of_litestar_are_touched_in_one_file(touches: dict[str, set[str]]) -> None:
    private = {name: files for name, files in touches.items() if name.startswith("litestar.") and is_private(name)}
    assert private
    assert {file for files in private.values() for file in files} == {"realtime/internals.py"}, private


def test_undocumented_parts_of_litestar_are_touched_where_it_is_known(touches: dict[str, set[str]]) -> None:
    assert {name: touches.get(name, set()) for name in OF_LITESTAR} == OF_LITESTAR


def test_uvicorn_and_websockets_are_touched_in_one_folder(touches: dict[str, set[str]]) -> None:
    servers = {name: files for name, files in touches.items() if name.startswith(("uvicorn.", "websockets."))}
    outside = {
        name: elsewhere
        for name, files in servers.items()
        if not OF_SERVERS.fullmatch(name)
        and (elsewhere := {each for each in files if "/server/" not in each} - {IN_TESTS})
    }
    assert len(servers) > 40  # or they are not seen
    assert outside == {}


@pytest.mark.parametrize("module", ["uvicorn", "websockets"])
def test_the_servers_are_imported_in_one_folder(trees: Trees, module: str) -> None:
    def names(tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(level=0, module=str(source), names=names) if source.partition(".")[0] == module:
                    yield from (f"{source}.{alias.name}" for alias in names)
                case ast.Import(names=names):
                    yield from (alias.name for alias in names if alias.name.partition(".")[0] == module)
                case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(text))]) if (
                    text == module
                ):
                    yield text

    outside = {
        (file, name)
        for file, found in by_file(trees, names).items()
        for name in found
        if "/server/" not in file and file != IN_TESTS and not OF_SERVERS.fullmatch(name)
    }
    assert outside == set()


@pytest.mark.parametrize("module", MOVING)
def test_what_moves_is_imported_where_it_is_known(trees: Trees, module: str) -> None:
    def imported(tree: ast.Module) -> Iterator[str]:
        return (name for name in names_in(tree) if name == module or name.startswith(f"{module}."))

    assert set(by_file(trees, imported)) == MOVING[module]


def imports_of(file: str, tree: ast.Module, files: Trees) -> Iterator[str]:
    """Yield the files of the package that a file imports, under TYPE_CHECKING and in functions too."""
    folder = ["my_service", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(level=level, module=module, names=names):
                start = folder[: len(folder) + 1 - level] if level else []
                base = [*start, *(module.split(".") if module else [])]
                for alias in names:
                    yield from (each for each in candidates([*base, alias.name]) if each in files)
            case ast.Import(names=names):
                for alias in names:
                    yield from (each for each in candidates(alias.name.split(".")) if each in files)


def candidates(parts: list[str]) -> list[str]:
    """Return the file that a dotted name stands for: a module, a package, or the module that holds the name."""
    if parts[0] != "my_service":
        return []
    path, holder = "/".join(parts[1:]), "/".join(parts[1:-1])
    return [f"{path}.py", f"{path}/__init__.py", f"{holder}.py", f"{holder}/__init__.py"]


def folder_of(file: str) -> str:
    """Return the concern of a file: one of the folders of `realtime/`, or the file itself."""
    parts = file.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else file


@pytest.mark.parametrize("unit", [str, folder_of], ids=["modules", "folders"])
@pytest.mark.parametrize("answers", [{}, EVERYTHING, {"fanout": "postgres"}], ids=["default", "everything", "postgres"])
def test_nothing_is_imported_in_a_circle(renders: Renders, answers: dict[str, str], unit: Callable[[str], str]) -> None:
    package = renders.of(**answers) / "src" / "my_service"
    trees = {file.relative_to(package).as_posix(): ast.parse(file.read_text("utf-8")) for file in package.rglob("*.py")}
    graph: dict[str, set[str]] = defaultdict(set)
    for file, tree in trees.items():
        graph[unit(file)] |= {unit(imported) for imported in imports_of(file, tree, trees)} - {unit(file)}
    assert sum(map(len, graph.values())) > 50  # or they are not seen
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_files_of_the_user_import_only_public_names(trees: Trees) -> None:
    assigned = [node for node in trees["realtime/__init__.py"].body if isinstance(node, ast.Assign)]
    public = {str(name) for node in assigned for name in ast.literal_eval(node.value)}
    assert "Realtime" in public
    for file, tree in trees.items():
        if file.startswith("realtime/"):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module="realtime", names=names):
                    also = {"command"} if file == "__main__.py" else set()
                    assert {alias.name for alias in names} <= public | also, file
                case ast.ImportFrom(module=str(module)):
                    assert not re.search(r"(^|\.)realtime(\.|$)", module), f"{file} imports {module}"
                case _:
                    pass
