"""The hooks of the service: a module or an object; one that is missing, misnamed or not callable is refused."""

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from my_service import hooks
from my_service.realtime import Cause, ConfigurationError, Realtime, Socket
from my_service.settings import Settings
from my_service.state import Connection

ACCEPT = "async def on_accept(socket, connection): ...\n"
DISCONNECT = "async def on_disconnect(socket, connection, cause): ...\n"


def module(folder: Path, source: str) -> ModuleType:
    path = folder / "hooks.py"
    path.write_text(source)
    module = ModuleType("hooks")
    module.__file__ = str(path)
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 (the module of a test)
    return module


class Hooks:
    async def on_accept(self, socket: Socket, connection: Connection) -> None: ...

    async def on_disconnect(self, socket: Socket, connection: Connection, cause: Cause) -> None: ...


@pytest.mark.parametrize("given", [hooks, Hooks(), Hooks, SimpleNamespace(**vars(hooks))])
def test_what_has_both_is_right(given: Any) -> None:
    if given is Hooks:
        with pytest.raises(ConfigurationError, match=r"cannot be called as on_accept\(socket, connection\)"):
            Realtime(Settings(), Connection, given)
    else:
        Realtime(Settings(), Connection, given)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (ACCEPT, "hooks (hooks.py, line 1) has no function on_disconnect.\nFix: add `async def on_disconnect("),
        (DISCONNECT, "hooks (hooks.py, line 1) has no function on_accept.\nFix: add `async def on_accept("),
        (f"{ACCEPT}on_disconnect = None\n", "hooks (hooks.py, line 1) has no function on_disconnect"),
        (
            f"{ACCEPT}{DISCONNECT.replace('nn', 'n')}",
            "on_disconect (hooks.py, line 2) is never called.\nFix: rename it to on_disconnect",
        ),
        (f"{ACCEPT}{DISCONNECT}def on_acept(): ...\n", "on_acept (hooks.py, line 3) is never called"),
        (f"{DISCONNECT}def on_connect(): ...\n", "is never called.\nFix: rename it to on_accept"),
        (f"{ACCEPT[6:]}{DISCONNECT}", "on_accept (hooks.py, line 1) is a hook but not an async function"),
        (
            f"{ACCEPT}async def on_disconnect(socket): ...\n",
            "on_disconnect (hooks.py, line 2) cannot be called as on_disconnect(socket, connection, cause)",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        Realtime(Settings(), Connection, module(tmp_path, source))


def test_other_functions_of_the_module_are_its_own(tmp_path: Path) -> None:
    others = "from inspect import isclass as on_acept\ndef _on_disconect(): ...\nasync def on_shift_end(): ...\n"
    Realtime(Settings(), Connection, module(tmp_path, ACCEPT + DISCONNECT + others))


async def takes_an_argument(pool: object) -> None: ...


@pytest.mark.parametrize("function", [takes_an_argument, print, None, lambda: None])
def test_what_ready_cannot_await_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="is passed in ready= but is not an async function without parameters"):
        Realtime(Settings(), Connection, hooks, ready=[function])
