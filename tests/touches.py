"""A plugin of mypy: it writes down each attribute and each function of the named packages that checked code uses.

mypy knows the type of every expression, so it also sees what is reached through a variable, a subclass or an alias.
The file to write to is in the environment, as TOUCHES; each line is the file, a tab, and the full name.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mypy.options import Options
from mypy.plugin import Plugin

WATCHED = ("litestar.", "uvicorn.", "websockets.")

Hook = Callable[[Any], Any]


class Touches(Plugin):
    """Changes no type; it is asked for a hook by the full name of whatever is used."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._target = Path(os.environ["TOUCHES"])

    def _watch(self, fullname: str) -> Hook | None:
        def note(context: Any) -> Any:
            with self._target.open("a") as target:
                target.write(f"{context.api.path}\t{fullname}\n")
            return getattr(context, "default_attr_type", None) or context.default_return_type

        return note if fullname.startswith(WATCHED) else None

    def get_attribute_hook(self, fullname: str) -> Hook | None:
        return self._watch(fullname)

    def get_class_attribute_hook(self, fullname: str) -> Hook | None:
        return self._watch(fullname)

    def get_method_hook(self, fullname: str) -> Hook | None:
        return self._watch(fullname)

    def get_function_hook(self, fullname: str) -> Hook | None:
        return self._watch(fullname)


def plugin(_: str) -> type[Plugin]:
    return Touches
