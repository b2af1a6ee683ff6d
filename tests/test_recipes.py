"""What the reference shows of rooms, run as it stands there."""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection as ClientConnectionSync
from websockets.sync.client import connect as connect_sync

from .engines import PostgresServer
from .rendering import ROOT, check, compile_package, environment, render, replace
from .service import TIMEOUT, Service, add_listener, running

REFERENCE = ROOT / "template" / "src" / "{{package_name}}" / "realtime" / "README.md"
LISTENERS = 200


def code(start: str) -> str:
    """Return the code in the reference that begins like this."""
    blocks = re.findall(r"^```python\n(.*?)^```", REFERENCE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    [found] = [block for block in blocks if block.startswith(start)]
    return str(found)


def add_recipe(project: Path, name: str) -> Path:
    """Add a listener of the reference, with the class of the same name."""
    add_listener(project, name, code(f'"""listeners/{name}.py:'))
    package = project / "src" / "my_service"
    replace(package / "app.py", f"import {name}\n", f"import {name.title()}\n")
    replace(package / "app.py", f"            {name},\n", f"            {name.title()},\n")
    return package / "listeners" / f"{name}.py"


def project_with_minutes(template: Path, folder: Path) -> Path:
    project = render(template, folder / "my-service", fanout="postgres")
    listener = add_recipe(project, "minutes")
    # Many are between the commit and the publish when somebody joins.
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
    received: list[str] = []
    while not received or received[-1] != "end":
        async with asyncio.timeout(TIMEOUT):
            message = json.loads(await client.recv())
        assert message["type"] == "minute", message
        received.append(message["text"])
    return received


async def speak(client: ClientConnection, name: str, done: asyncio.Event) -> list[str]:
    """Say one thing after the other until it is done; return what was said."""
    said: list[str] = []
    while not done.is_set():
        said.append(f"{name} {len(said)}")
        await client.send(json.dumps({"type": "say", "text": said[-1]}))
        async with asyncio.timeout(TIMEOUT):
            while json.loads(await client.recv())["text"] != said[-1]:
                pass
    return said


def test_200_late_joiners_on_two_nodes_have_everything_once(
    postgres: PostgresServer, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    monkeypatch.setenv("DATABASE_URL", url)
    project = project_with_minutes(template, tmp_path)

    async def meet(nodes: list[Service]) -> tuple[list[str], list[list[str]]]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE minutes (id serial PRIMARY KEY, room text, text text)"))
        await engine.dispose()
        async with AsyncExitStack() as stack:

            async def join(number: int) -> ClientConnection:
                path = nodes[number % 2].url("/ws/minutes/board")
                return await stack.enter_async_context(connect(path, open_timeout=TIMEOUT))

            speakers = [await join(number) for number in range(4)]
            done = asyncio.Event()
            speaking = [
                asyncio.create_task(speak(client, name, done)) for client, name in zip(speakers, "abcd", strict=True)
            ]
            listening = [asyncio.create_task(listen(await join(number))) for number in range(LISTENERS)]
            done.set()
            said = [text for texts in await asyncio.gather(*speaking) for text in texts]
            await speakers[0].send('{"type":"say","text":"end"}')
            return sorted([*said, "end"]), await asyncio.gather(*listening)

    nodes = [Service(project, fanout_url=postgres.url) for _ in range(2)]
    try:
        everything, all_received = asyncio.run(meet(nodes))
        for received in all_received:
            assert sorted(received) == everything
    finally:
        for node in nodes:
            node.stop()


def test_a_guard_admits_the_members_of_a_room(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = render(template, tmp_path / "my-service", auth="jwt")
    rooms = project / "src" / "my_service" / "listeners" / "rooms.py"
    replace(rooms, "from typing import Annotated", "from typing import Annotated, Any")
    replace(rooms, "\nclass Rooms", f"{code('from litestar.connection import ASGIConnection')}\n\nclass Rooms")
    replace(
        rooms, '    path = "/ws/rooms/{room:str}"\n', '    path = "/ws/rooms/{room:str}"\n    guards = [may_enter]\n'
    )
    secret = "0123456789abcdef" * 4

    def enter(user: str, room: str) -> int:
        """Return the status with which a handshake is answered."""
        token = check(project, "python", "-m", "my_service.realtime", "token", user).split()[-1]
        headers = {"Authorization": f"Bearer {token}"}
        try:
            with connect_sync(service.url(f"/ws/rooms/{room}"), additional_headers=headers, open_timeout=TIMEOUT):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    monkeypatch.setenv("MY_SERVICE_AUTH_SECRET", secret)
    with running(project, auth_secret=secret) as service:
        entered = {(user, room): enter(user, room) for user in ("ada", "mallory") for room in ("kitchen", "yard")}
    assert entered == {
        ("ada", "kitchen"): 101,
        ("ada", "yard"): 403,
        ("mallory", "kitchen"): 403,
        ("mallory", "yard"): 403,
    }


def test_one_connection_joins_and_leaves_many_rooms(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "my-service")
    add_recipe(project, "lobby")

    def ask(client: ClientConnectionSync, **message: Any) -> dict[str, Any]:
        """Send a message; return the answer to it, or what is published next."""
        client.send(json.dumps(message))
        answer: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
        return answer

    with (
        running(project) as service,
        connect_sync(service.url("/ws/lobby")) as one,
        connect_sync(service.url("/ws/lobby")) as other,
    ):
        for number in range(20):
            assert ask(one, type="join", room=str(number), ref=number)["ref"] == number
        assert ask(one, type="join", room="20", ref="full")["code"] == "too_many_rooms"
        assert ask(one, type="join", room="19")["type"] == "joined", "it is there already"
        assert ask(other, type="say", room="19", text="hi")["code"] == "not_joined"
        assert ask(other, type="join", room="19")["type"] == "joined"
        assert ask(other, type="say", room="19", text="hi")["text"] == "hi"
        assert json.loads(one.recv(timeout=TIMEOUT))["room"] == "19"
        assert ask(one, type="leave", room="19")["type"] == "left"
        assert ask(other, type="say", room="19", text="without you")["text"] == "without you"
        assert ask(one, type="join", room="20")["type"] == "joined", "there is room again, and nothing came before"


def test_a_request_publishes_after_its_commit_and_only_then(
    postgres: PostgresServer, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url.replace("postgresql://", "postgresql+psycopg://"))
    project = render(template, tmp_path / "my-service")
    package = project / "src" / "my_service"
    (package / "notes.py").write_text(code('"""notes.py:'))
    replace(package / "app.py", "from .realtime", "from .notes import add_note\nfrom .realtime")
    replace(package / "app.py", "route_handlers=[\n", "route_handlers=[\n            add_note,\n")

    def add(text: str) -> int:
        request = Request(f"http://{service.address}/notes?text={text}", method="POST")
        try:
            with urlopen(request, timeout=TIMEOUT) as response:
                return int(response.status)
        except HTTPError as error:
            with error:
                return error.code

    # A constraint that is checked at the commit, and not before.
    unique = "UNIQUE (text) DEFERRABLE INITIALLY DEFERRED"
    with psycopg.connect(postgres.url, autocommit=True) as db, running(project) as service:
        db.execute(f"CREATE TABLE notes (id serial PRIMARY KEY, text text, {unique})")
        with connect_sync(service.url("/ws/rooms/notes?after=0")) as room:
            assert [add("one"), add("one"), add("two")] == [201, 500, 201]
            received: list[str] = []
            while "two" not in received:
                message = json.loads(room.recv(timeout=TIMEOUT))
                received += [message["text"]] if message["type"] == "note_added" else []
            assert received == ["one", "two"]
            assert db.execute("SELECT text FROM notes ORDER BY id").fetchall() == [("one",), ("two",)]


def test_a_room_shows_who_is_there_and_what_they_do(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "my-service")
    add_recipe(project, "table")
    environment(project)
    with running(project) as service:

        def receive(client: ClientConnectionSync) -> tuple[str, str, str]:
            message = json.loads(client.recv(timeout=TIMEOUT))
            return message["type"], message["name"], message.get("status", "")

        url = service.url("/ws/table/oak")
        with connect_sync(url) as one:
            _, first, status = receive(one)
            assert status == "here"
            with connect_sync(url) as two:
                assert receive(two) == ("member", first, "here")
                _, second, _ = receive(two)
                assert receive(one) == ("member", second, "here")
                two.send('{"type":"status","status":"typing"}')
                assert receive(one) == receive(two) == ("member", second, "typing")
            assert receive(one) == ("gone", second, "")
