"""Write a listener with its messages and its test, and register it in app.py, at /ws/NAME.

The files are src/<package>/listeners/NAME.py and tests/listeners/test_NAME.py. No existing file is replaced; two lines
are added to app.py.
"""

import argparse
import ast
import builtins
import keyword
import re
import sys
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any, Final

from ..errors import ConfigurationError
from ..settings import PACKAGE

MAX_LENGTH: Final = 38
"""Maximum characters of a name, so that every generated line fits into 120 columns."""

MODULE: Final = '''\
"""/ws/$name: a listener and its messages."""

${first}from litestar.di import NamedDependency
from msgspec import Struct

from ..realtime import $imports
from ..state import Connection


class Send(Struct, tag="send"):
    """A client sends a text."""

    text: str


class Sent(Struct, tag="sent"):
    """The text that was sent, and the connection that sent it."""

    text: str
    connection: str


'''

FUNCTION: Final = '''\
@listener("/ws/$name")
async def $symbol(data: Send, connection: NamedDependency[Connection]) -> Sent:
    """Answer each message with the same text."""
    return Sent(text=data.text, connection=connection.id)
'''

STREAM: Final = '''\
@listener("/ws/$name")
async def $symbol(
    data: Send,
    connection: NamedDependency[Connection],
) -> AsyncGenerator[Sent, None]:
    """Answer each message with its words, one after the other. The client may cancel it."""
    for word in data.text.split():
        yield Sent(text=word, connection=connection.id)
        await asyncio.sleep(0.1)
'''

CLASS: Final = '''\
class $symbol(Listener):
    """Send each text back to the connection that sent it."""

    path = "/ws/$name"

    async def on_accept(self, connection: Connection) -> None:
        """Acquire here what a connection needs, and keep it in `connection`."""

    async def on_receive(self, data: Send, connection: NamedDependency[Connection]) -> Sent:
        """Answer each message with the same text."""
        return Sent(text=data.text, connection=connection.id)

    async def on_disconnect(self, connection: Connection, cause: Cause) -> None:
        """Release here what `on_accept` acquired, whatever ended the connection."""
'''

TEST_HEAD: Final = '''\
"""What /ws/$name does."""

from $package.listeners.$name import Send, Sent
from $package.realtime.testing import Connect


'''

TEST: Final = """\
def test_it_answers(connect: Connect) -> None:
    assert connect("/ws/$name").request(Send(text="hi"), Sent).text == "hi"
"""

STREAM_TEST: Final = """\
def test_it_streams(connect: Connect) -> None:
    words = connect("/ws/$name").stream(Send(text="hi there"), Sent)
    assert [word.text for word in words] == ["hi", "there"]


def test_it_is_cancelled(connect: Connect) -> None:
    words = connect("/ws/$name").stream(Send(text="a long text " * 1000), Sent)
    assert next(words).text == "a"
    words.close()
"""

HANDLERS: Final = re.compile(r"^( +)route_handlers=\[(?:\]|(\r?\n)(?:\1 .*\n)*(?=\1\]))", re.MULTILINE)
"""The list in app.py as the template writes it, one name on a line and the brackets on lines of their own; or empty."""

RELATIVE_IMPORT: Final = re.compile(r"^from \.([\w.]*) import ", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and underscores, such as price_feed")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--class", dest="as_class", action="store_true", help="write a class instead of a function")
    kinds.add_argument("--stream", action="store_true", help="write a function that answers with a stream")


def run(options: argparse.Namespace) -> None:
    """Write the files.

    Raises:
        ConfigurationError: The name cannot be used, or a file exists already. Nothing was written.
    """
    package = Path(__file__).parents[2]
    project = next((folder for folder in package.parents if (folder / "pyproject.toml").is_file()), None)
    if project is None:
        raise ConfigurationError(
            str(package), "is installed without its project", "run the command in the project's folder"
        )
    name: str = options.name
    symbol = "".join(word.capitalize() for word in name.split("_")) if options.as_class else name
    values = {
        "name": name,
        "symbol": symbol,
        "imports": "Cause, Listener" if options.as_class else "listener",
        "first": "import asyncio\nfrom collections.abc import AsyncGenerator\n\n" if options.stream else "",
        "package": PACKAGE,
    }
    module = Template(MODULE + (CLASS if options.as_class else STREAM if options.stream else FUNCTION))
    test = Template(TEST_HEAD + (STREAM_TEST if options.stream else TEST))
    app = package / "app.py"
    source = app.read_bytes().decode() if app.is_file() else ""
    taken = {
        "Python": set(dir(builtins)),
        "the file of a listener": _names_in(module.substitute(values, name="_", symbol="_")),
        "app.py": _names_in(source),
        f"the package {PACKAGE}": {path.stem for path in package.iterdir()},
    }
    _check_name(name, symbol, taken)
    files = {
        package / "listeners" / f"{name}.py": module,
        project / "tests" / "listeners" / f"test_{name}.py": test,
    }
    for file in files:
        if file.exists():
            place, fix = str(file.relative_to(project)), "choose another name, or rename that file"
            raise ConfigurationError(place, "exists already", fix)
    for file, template in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template.substitute(values))
        sys.stdout.write(f"Wrote {file.relative_to(project)}\n")
    if registered := _register(source, name, symbol):
        app.write_bytes(registered.encode())
        sys.stdout.write(f"Registered {symbol} in {app.relative_to(project)}\n")
    else:
        sys.stdout.write(
            f"The list of route handlers in {app.relative_to(project)} was changed by hand. Add these two lines "
            f"yourself:\n\n    from .listeners.{name} import {symbol}\n    {symbol},  # in route_handlers\n"
        )


def _check_name(name: str, symbol: str, taken: dict[str, set[str]]) -> None:
    """Refuse a name that would make the files invalid.

    Args:
        name: The name of the module.
        symbol: The name of the listener in it.
        taken: The names that are taken, by the place that uses them.

    Raises:
        ConfigurationError: The name is not a module name, or it is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or len(name) > MAX_LENGTH or keyword.iskeyword(name):
        raise ConfigurationError(
            f"The name {name!r}",
            "is not the name of a module",
            f"use up to {MAX_LENGTH} lower-case letters, digits and underscores, such as price_feed, and no keyword",
        )
    for place, names in taken.items():
        if symbol in names:
            raise ConfigurationError(
                f"The name {symbol!r}", f"is used in {place}", f"choose another, such as {name[: MAX_LENGTH - 5]}_feed"
            )


def _names_in(source: str) -> set[Any]:
    """Return the names and modules that occur in Python code; none if the code is not valid."""
    names: set[Any] = set()
    with suppress(SyntaxError):
        for node in ast.walk(ast.parse(source)):
            names |= {getattr(node, attribute, None) for attribute in ("module", "asname", "name", "arg", "id")}
    return names


def _register(source: str, name: str, symbol: str) -> str | None:
    """Add a listener to the source of app.py: one line among the imports, in ruff's order, and one in the list.

    Returns:
        The source, or None if the list or the imports differ from what the template writes.
    """
    handlers = HANDLERS.search(source)
    if handlers is None or source.count("route_handlers=") != 1:
        return None
    module = f"listeners.{name}"
    imports = RELATIVE_IMPORT.finditer(source, 0, handlers.start())
    line = next((each.start() for each in imports if _natural(each[1]) > _natural(module)), None)
    if line is None:
        return None
    indent, end = handlers[1], "\r\n" if "\r\n" in source else "\n"
    upper, lower = source[line : handlers.end()], source[handlers.end() :]
    if upper.endswith("[]"):
        upper, lower = f"{upper[:-1]}{end}", f"{indent}]{lower}"
    registered = f"{source[:line]}from .{module} import {symbol}{end}{upper}{indent}    {symbol},{end}{lower}"
    return registered if module in _names_in(registered) else None


def _natural(name: str) -> list[Any]:
    """Return a sort key that compares numbers by value: chat2 before chat10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
