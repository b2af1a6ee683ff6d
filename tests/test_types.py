"""The types of the generated API: mypy and pyright see the mistakes in a lifespan before anything runs."""

import sys
from pathlib import Path

import pytest

from .rendering import replace, run

CODE = '''"""What a user may write by mistake."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .realtime import Socket, listener


async def plain_function(socket: Socket) -> None: ...


async def undecorated(socket: Socket) -> AsyncGenerator[None, None]:
    yield


@asynccontextmanager
async def right(socket: Socket) -> AsyncGenerator[None, None]:
    yield


@listener("/", connection_lifespan=LIFESPAN)
async def handler(data: str) -> None: ...
'''
TOOLS = {"mypy": (), "pyright": ("--pythonpath", sys.executable)}
WRONG = {
    "plain_function": ("LIFESPAN", "plain_function"),
    "undecorated": ("LIFESPAN", "undecorated"),
    "no yield": ("AsyncGenerator[None, None]:\n    yield\n\n\n@listener", "None: ...\n\n\n@listener"),
    "unknown": ("connection_lifespan=LIFESPAN", "connection_lifspan=right"),
}


def complaints(project: Path, tool: str) -> str:
    result = run(project, tool, *TOOLS[tool])
    assert (result.returncode == 0) == ("user_code.py" not in result.stdout), result.stdout
    return result.stdout


@pytest.mark.parametrize("tool", TOOLS)
def test_type_checkers_see_a_wrong_lifespan(project: Path, tool: str) -> None:
    file = project / "src" / "my_service" / "user_code.py"
    file.write_text(CODE.replace("LIFESPAN", "right"))
    assert "user_code.py" not in complaints(project, tool)
    for name, (old, new) in WRONG.items():
        file.write_text(CODE)
        replace(file, old, new)
        replace(file, "LIFESPAN", "right") if "LIFESPAN" in file.read_text() else None
        assert "user_code.py" in complaints(project, tool), name
