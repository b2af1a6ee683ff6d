"""A room whose history is in a database of the service: who joins late receives everything once, on every node."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from websockets.asyncio.client import ClientConnection, connect

from .engines import PostgresServer
from .rendering import ROOT, compile_package, environment, render, replace
from .service import TIMEOUT, Service, add_listener
from .test_fanout import begin

REFERENCE = ROOT / "template" / "src" / "{{package_name}}" / "realtime" / "README.md"
LISTENERS, MESSAGES = 200, 60


def recipe(name: str) -> str:
    """Return a module of the reference, by the name of its file."""
    [source] = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", REFERENCE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        if block.startswith(f'"""listeners/{name}.py:')
    ]
    return source


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        begin(server)
        yield server
    finally:
        server.remove()


def project_with_minutes(template: Path, folder: Path) -> Path:
    project = render(template, folder / "my-service", fanout="postgres")
    add_listener(project, "minutes", recipe("minutes"))
    package = project / "src" / "my_service"
    replace(package / "app.py", "import minutes\n", "import Minutes\n")
    replace(package / "app.py", "            minutes,\n", "            Minutes,\n")
    # Many are between the commit and the publish when somebody joins.
    listener = package / "listeners" / "minutes.py"
    replace(listener, "import os\n", "import asyncio\nimport os\nimport random\n")
    replace(
        listener,
        "        await fanout.publish(",
        "        await asyncio.sleep(random.random() / 10)\n        await fanout.publish(",
    )
    environment(project)
    compile_package(project)
    return project


async def listen(client: ClientConnection) -> list[str]:
    """Return what is said until the end."""
    heard: list[str] = []
    async with asyncio.timeout(3 * TIMEOUT):
        while not heard or heard[-1] != "end":
            message = json.loads(await client.recv())
            assert message["type"] == "minute", message
            heard.append(message["text"])
    return heard


async def speak(client: ClientConnection, name: str) -> None:
    for number in range(MESSAGES):
        said = f"{name} {number}"
        await client.send(json.dumps({"type": "say", "text": said}))
        async with asyncio.timeout(TIMEOUT):
            while json.loads(await client.recv())["text"] != said:
                pass


def test_200_late_joiners_on_two_nodes_have_everything_once(
    database: PostgresServer, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.url.replace("postgresql://", "postgresql+psycopg://")
    monkeypatch.setenv("DATABASE_URL", url)
    project = project_with_minutes(template, tmp_path)

    async def meet(nodes: list[Service]) -> list[list[str]]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE minutes (id serial PRIMARY KEY, room text, text text)"))
        await engine.dispose()
        async with AsyncExitStack() as stack:

            async def join(number: int) -> ClientConnection:
                path = nodes[number % 2].url("/ws/minutes/board")
                return await stack.enter_async_context(connect(path, open_timeout=TIMEOUT))

            speakers = [await join(number) for number in range(4)]
            speaking = [asyncio.create_task(speak(client, name)) for client, name in zip(speakers, "abcd", strict=True)]
            listening = [asyncio.create_task(listen(await join(number))) for number in range(LISTENERS)]
            assert not any(task.done() for task in speaking), "nobody was late"
            await asyncio.gather(*speaking)
            await speakers[0].send('{"type":"say","text":"end"}')
            return await asyncio.gather(*listening)

    nodes = [Service(project, fanout_url=database.url) for _ in range(2)]
    try:
        everything = sorted([f"{name} {number}" for name in "abcd" for number in range(MESSAGES)] + ["end"])
        for heard in asyncio.run(meet(nodes)):
            assert sorted(heard) == everything
    finally:
        for node in nodes:
            node.stop()
