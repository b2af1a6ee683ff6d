"""`new-listener NAME [--class]`: write a listener with its messages and its test, and register it in app.py.

It only adds: no file that exists is replaced, and app.py gets two lines.
"""

import argparse
import ast
import builtins
import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Final

from ..errors import ConfigurationError
from ..settings import PACKAGE
from .registration import register

DESCRIPTION: Final = (
    "Write src/<package>/listeners/NAME.py and tests/listeners/test_NAME.py, and register the listener in app.py at "
    "/ws/NAME. Nothing that exists is replaced."
)

MAX_LENGTH: Final = 40
"""Characters of a name with which every generated line fits into 120 columns."""

MESSAGES: Final = '''\
class Send(Struct, tag="send"):
    """A client sends a text."""

    text: str


class Sent(Struct, tag="sent"):
    """The text that was sent, and the connection that sent it."""

    text: str
    connection: str
'''

FUNCTION: Final = f'''\
"""/ws/$name: a listener as a function, with its messages."""

from litestar.di import NamedDependency
from msgspec import Struct

from ..realtime import listener
from ..state import Connection


{MESSAGES}

@listener("/ws/$name")
async def $symbol(data: Send, connection: NamedDependency[Connection]) -> Sent:
    """Answer each message with the same text."""
    return Sent(text=data.text, connection=connection.id)
'''

CLASS: Final = f'''\
"""/ws/$name: a listener as a class, with its messages."""

from litestar.di import NamedDependency
from msgspec import Struct

from ..realtime import Cause, Listener
from ..state import Connection


{MESSAGES}

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

TEST: Final = '''\
"""What /ws/$name does."""

from litestar import Litestar
from litestar.testing import TestClient


def test_it_answers(client: TestClient[Litestar]) -> None:
    with client.websocket_connect("/ws/$name") as socket:
        socket.send_json({"type": "send", "text": "hi"})
        answer = socket.receive_json(timeout=20)
        assert (answer["type"], answer["text"]) == ("sent", "hi")
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and underscores, such as price_feed")
    parser.add_argument("--class", dest="as_class", action="store_true", help="write a class instead of a function")


def run(options: argparse.Namespace) -> None:
    """Write the files.

    Raises:
        ConfigurationError: The name cannot be used, or a file exists already. Nothing was written.
    """
    package = Path(__file__).parents[2]
    project = next((folder for folder in package.parents if (folder / "pyproject.toml").is_file()), None)
    if project is None:
        raise ConfigurationError(
            str(package), "is installed without its project", "run the command in the folder of the project"
        )
    name: str = options.name
    symbol = "".join(word.capitalize() for word in name.split("_")) if options.as_class else name
    source = CLASS if options.as_class else FUNCTION
    app = package / "app.py"
    _check_name(name, symbol, source, app)
    files = {
        package / "listeners" / f"{name}.py": Template(source).substitute(name=name, symbol=symbol),
        project / "tests" / "listeners" / f"test_{name}.py": Template(TEST).substitute(name=name),
    }
    for file in files:
        if file.exists():
            raise ConfigurationError(
                str(file.relative_to(project)), "exists already", "choose another name, or rename that file"
            )
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        sys.stdout.write(f"Wrote {file.relative_to(project)}\n")
    where = app.relative_to(project)
    if app.is_file() and register(app, name, symbol):
        sys.stdout.write(f"Registered {symbol} in {where}\n")
    else:
        sys.stdout.write(
            f"{where} has no list route_handlers=[...] in which to register it. Add these two lines yourself:\n\n"
            f"    from .listeners.{name} import {symbol}\n"
            f"    {symbol},  # among the route handlers\n"
        )


def _check_name(name: str, symbol: str, source: str, app: Path) -> None:
    """Refuse a name with which the files would be wrong.

    Raises:
        ConfigurationError: The name is not an identifier, too long, or taken.
    """
    suggestion = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()
    suggestion = suggestion if re.fullmatch("[a-z][a-z0-9_]*", suggestion[:MAX_LENGTH]) else "price_feed"
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ConfigurationError(
            f"The name {name!r}",
            "is not one for a module",
            f"use lower-case letters, digits and underscores, such as {suggestion[:MAX_LENGTH]}",
        )
    if len(name) > MAX_LENGTH:
        raise ConfigurationError(
            f"The name {name!r}", f"has {len(name)} characters", f"use at most {MAX_LENGTH}, such as {name[:12]}"
        )
    own = set(_bound_names(Template(source).substitute(name="_", symbol="_")))
    modules = {path.stem for path in app.parent.iterdir()}
    where = (
        "Python"
        if keyword.iskeyword(name) or hasattr(builtins, symbol)
        else "the file of a listener"
        if symbol in own
        else app.name
        if app.is_file() and symbol in _bound_names(app.read_text())
        else f"the package {PACKAGE}"
        if name in modules
        else None
    )
    if where:
        raise ConfigurationError(
            f"The name {symbol!r}", f"is taken in {where}", f"choose another, such as {name[: MAX_LENGTH - 5]}_feed"
        )


def _bound_names(source: str) -> Iterator[str]:
    """Yield the names that a module or its functions import, define or assign; none of a module that is not valid."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        match node:
            case ast.alias():
                yield (node.asname or node.name).partition(".")[0]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case _:
                pass
