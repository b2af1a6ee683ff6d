"""Where the generated service touches what a new version of Litestar or uvicorn may change, without a word.

It does so in few files, listed here. A touch elsewhere fails, and so does an entry that no file needs any more: then
look at what the new version does, and at the file.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .rendering import render

PRIVATE = {
    "connections/drain.py": {"os._exit"},
    "connections/internals.py": {
        "_connection_lifespan",
        "function._fn",
        "handler._receive_mode",
        "handler._send_mode",
    },
    "connections/listener.py": {"self._owner", "self._receive_mode", "self._send_mode"},  # inherited
    "connections/protocol.py": {"uvicorn._types.ASGIReceiveEvent", "uvicorn._types.ASGISendEvent"},
}
"""Names that begin with an underscore and belong to somebody else."""

CHANGING = {
    "litestar.handlers.websocket_handlers": {
        "connections/checks.py",
        "connections/internals.py",
        "connections/listener.py",
    },
    "litestar.plugins.opentelemetry": {"telemetry.py"},
    "litestar.routes": {"asyncapi/channels.py", "connections/internals.py", "connections/plugin.py"},
    "litestar.security": {"auth/handshake.py", "auth/plugin.py", "auth/token.py"},
    "litestar.types.asgi_types": {"connections/listener.py"},
    "litestar.typing": {"asyncapi/channels.py", "connections/internals.py", "connections/listener.py"},
    "uvicorn.protocols": {"connections/protocol.py"},
    "uvicorn.supervisors": {"server.py"},
}
"""Modules that Litestar 3 moves or rewrites, or that uvicorn does not document, and the files that may import them."""


@pytest.fixture(scope="module")
def package(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with all there is."""
    folder = tmp_path_factory.mktemp("internals") / "my-service"
    return render(template, folder, auth="jwt", fanout="redis") / "src" / "my_service"


def modules(package: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(package.rglob("*.py")):
        yield file.relative_to(package).as_posix(), ast.parse(file.read_text("utf-8"))


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def own_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def private_touches(tree: ast.Module, own: set[str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if name not in own:
                found |= {ast.unparse(node)} if is_private(name) else set()
            case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                found |= {name} if is_private(name) else set()
            case ast.ImportFrom(level=0, module=str(module)):
                found |= {name for name in (f"{module}.{alias.name}" for alias in node.names) if is_private(name)}
    return found


def imports(tree: ast.Module) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(level=0, module=str(module)):
                found |= {module}
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(module))]):
                found |= {module}
    return found


def test_private_parts_of_others_are_touched_where_it_is_known(package: Path) -> None:
    own = {name for _, tree in modules(package) for name in own_names(tree)}
    touches = {name: private_touches(tree, own) for name, tree in modules(package)}
    assert {name: found for name, found in touches.items() if found} == PRIVATE


@pytest.mark.parametrize("module", CHANGING)
def test_what_changes_is_imported_where_it_is_known(package: Path, module: str) -> None:
    importing = {
        name
        for name, tree in modules(package)
        if any(imported == module or imported.startswith(f"{module}.") for imported in imports(tree))
    }
    assert importing == CHANGING[module]
