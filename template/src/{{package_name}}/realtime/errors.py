"""The errors that stop the service at start-up. Each names the place, the mistake and the fix."""

import inspect
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any


class ConfigurationError(Exception):
    """A mistake in the code or the settings of the service. It stops the service, usually at start.

    Args:
        where: The function, class or object, to be named with its file and line; or a text, such as a setting.
        mistake: What is wrong there, as the rest of the sentence.
        fix: What to do about it, as an instruction.
    """

    def __init__(self, where: Any, mistake: str, fix: str) -> None:
        """Compose the message."""
        place = where if isinstance(where, str) else source_location(where)
        super().__init__(f"{place} {mistake}.\nFix: {fix}.")


class SettingsError(ConfigurationError):
    """Settings that are unknown or have a wrong value.

    Args:
        problems: One line for each setting, beginning with its name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        """Join the lines."""
        Exception.__init__(self, "\n".join(problems))


def source_location(obj: Any) -> str:
    """Return the name, file and line of a function, class, module or object, for an error.

    Args:
        obj: The object to name, as in `Rooms (src/my_service/listeners/rooms.py, line 12)`. An instance has the place
            of its class; a builtin has none.
    """
    obj = innermost(obj)
    if not hasattr(obj, "__name__"):
        obj = obj.__class__
    name = getattr(obj, "__qualname__", obj.__name__)
    with suppress(TypeError, OSError):  # it has no source: a builtin, a lambda of the console
        file = Path(inspect.getsourcefile(obj) or "?")
        line = obj.__code__.co_firstlineno if hasattr(obj, "__code__") else inspect.getsourcelines(obj)[1] or 1
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        return f"{name} ({file}, line {line})"
    return str(name)


def innermost(function: Any) -> Any:
    """Return the function inside decorators and partials."""
    inner: Any = function.func if isinstance(function, partial) else inspect.unwrap(function)
    return inner if inner is function else innermost(inner)


def opt_out_hint(name: str) -> str:
    """Return the `opt` that turns off the check of a name, for the end of an error message."""
    return f'opt={{"allow": ["{name}"]}}'
