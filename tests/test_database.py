"""`per_message` with SQLAlchemy on a real PostgreSQL: a transaction for each message, and few connections for many."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from websockets.asyncio.client import connect

from .engines import PostgresServer
from .rendering import environment, render
from .service import TIMEOUT, Service, add_listener

CLIENTS = 200
POOL = 3
MESSAGES = 5

DATABASE = '''\
"""Names in a table, each of them once, which is only checked at the commit."""

from collections.abc import AsyncGenerator

from litestar import Router, get
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from ..realtime import MessageError, listener

engine = create_async_engine("URL", pool_size=POOL, max_overflow=0)
make_session = async_sessionmaker(engine)


class Rename(Struct, tag="rename"):
    name: str
    refuse: bool = False


class Renamed(Struct, tag="renamed"):
    name: str


async def transaction() -> AsyncGenerator[AsyncSession, None]:
    async with make_session.begin() as session:
        yield session


@listener("/", per_message={"db": transaction})
async def rename(data: Rename, db: AsyncSession) -> Renamed:
    await db.execute(text("INSERT INTO names VALUES (:name)"), {"name": data.name})
    if data.refuse:
        raise MessageError("refused")
    return Renamed(name=data.name)


@get("/in-use")
async def in_use() -> int:
    return engine.pool.checkedout()


database = Router("/names", route_handlers=[rename, in_use])
'''


@pytest.fixture
def service(template: Path, tmp_path: Path, postgres: PostgresServer) -> Iterator[Service]:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE names (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    project = render(template, tmp_path / "my-service")
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    add_listener(project, "database", DATABASE.replace("URL", url).replace("POOL", str(POOL)))
    environment(project)
    service = Service(project)
    try:
        yield service
    finally:
        service.stop()


async def ask(client: Any, **fields: Any) -> dict[str, Any]:
    await client.send(json.dumps({"type": "rename", **fields}))
    answer: dict[str, Any] = json.loads(await asyncio.wait_for(client.recv(), TIMEOUT))
    return answer


def test_many_connections_share_few_transactions(service: Service, postgres: PostgresServer) -> None:
    url = f"ws://{service.address}/names"

    async def talk(number: int, reader: psycopg.AsyncConnection[Any]) -> None:
        async with connect(url) as client:
            for message in range(MESSAGES):
                name = f"{number}-{message}"
                assert await ask(client, name=name, ref=message) == {"type": "renamed", "name": name, "ref": message}
                found = await reader.execute("SELECT 1 FROM names WHERE name = %s", [name])
                assert await found.fetchone(), "it is answered before the commit"
            refused = await ask(client, name=f"{number}-refused", refuse=True)
            assert refused == {"type": "error", "code": "refused", "detail": ""}
            failed = await ask(client, name=f"{number}-0")
            assert failed["code"] == "commit_failed"
            await client.send(json.dumps({"type": "rename", "name": f"{number}-last"}))  # and it leaves

    async def everybody() -> None:
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as reader:
            await asyncio.gather(*[talk(number, reader) for number in range(CLIENTS)])

    asyncio.run(asyncio.wait_for(everybody(), TIMEOUT * 3))
    service.wait_for("connection closed", times=CLIENTS)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM names").fetchone() == (CLIENTS * (MESSAGES + 1),)
    assert service.get("/names/in-use") == (200, "0")
