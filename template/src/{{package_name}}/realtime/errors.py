"""What stops the service at start-up: each error names the place, the mistake and the fix."""

import inspect
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any


class ConfigurationError(Exception):
    """A mistake with which the service does not start, or does not go on.

    Args:
        where: The function, class or setting, with its file and line where there is one.
        mistake: What is wrong there.
        fix: What to do about it.
    """

    def __init__(self, where: str, mistake: str, fix: str) -> None:
        super().__init__(f"{where} {mistake}.\nFix: {fix}.")


class SettingsError(ConfigurationError):
    """Settings that are unknown or have a wrong value.

    Args:
        problems: One line for each setting, beginning with its name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        Exception.__init__(self, "\n".join(problems))


def source_location(obj: Any) -> str:
    """Name a function or a class with its file and line: `Rooms (src/my_service/listeners/rooms.py, line 12)`."""
    while isinstance(obj, partial):
        obj = obj.func
    obj = inspect.unwrap(obj)
    name = getattr(obj, "__qualname__", repr(obj))
    with suppress(TypeError, OSError):  # it has no source: a builtin, a lambda of the console
        file = Path(inspect.getsourcefile(obj) or "?")
        line = obj.__code__.co_firstlineno if hasattr(obj, "__code__") else inspect.getsourcelines(obj)[1]
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        return f"{name} ({file}, line {line})"
    return str(name)
