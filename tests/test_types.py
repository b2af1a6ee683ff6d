"""The types of the generated API: mypy and pyright see the mistakes in a lifespan before anything runs."""

import re
import sys
from pathlib import Path

import pytest

from .rendering import run

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
    "no_yield": ("AsyncGenerator[None, None]:\n    yield\n\n\n@listener", "None: ...\n\n\n@listener"),
    "unknown": ("connection_lifespan=LIFESPAN", "connection_lifspan=right"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_type_checkers_see_a_wrong_lifespan(project: Path, tool: str) -> None:
    files = []
    for name, (old, new) in {"right": ("LIFESPAN", "right"), **WRONG}.items():
        assert old in CODE
        files.append(f"src/my_service/{name}.py")
        (project / files[-1]).write_text(CODE.replace(old, new).replace("LIFESPAN", "right"))
    result = run(project, tool, *TOOLS[tool], *files)
    assert set(re.findall(r"(\w+)\.py:\d", result.stdout)) == set(WRONG), result.stdout
