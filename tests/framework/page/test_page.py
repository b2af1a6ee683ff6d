"""The live page. All of it comes from the service, and runs under a strict content security policy."""

import re
from collections.abc import AsyncGenerator

import pytest
from litestar import Litestar, post
from litestar.openapi import OpenAPIConfig
from litestar.params import FromPath
from litestar.testing import TestClient
from msgspec import Struct

from my_service import hooks
from my_service.realtime import Realtime, listener
from my_service.realtime.page import page
from my_service.settings import Settings
from my_service.state import Connection

NAMED = re.compile(r"""(?:src|href|from) ?=? ?"([^"#:]+\.(?:css|js|svg))\"""")
"""What a page, or a module of it, names."""


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/client.js", "/page/timeline.js"])
def test_all_that_it_names_is_served(client: TestClient[Litestar], path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    for name in NAMED.findall(answer.text):
        assert client.get(f"/page/{name.rpartition('/')[2]}").status_code == 200, name


def test_it_runs_no_script_of_another_host_and_none_inline(client: TestClient[Litestar]) -> None:
    answer = client.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<script>|\bstyle=|\bon\w+=", answer.text), "the policy would stop it"


@pytest.mark.parametrize("name", ["__init__.py", "../app.py", "%2e%2e%2fapp.py", "nothing.js"])
def test_nothing_else_is_served(client: TestClient[Litestar], name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_it_links_to_nothing_that_is_not_there(client: TestClient[Litestar]) -> None:
    navigation = client.get("/").text.partition("<nav")[2].partition("</nav>")[0]
    links = re.findall(r'href="([^"]+)"', navigation)
    assert links
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


def test_without_documentation_it_has_no_link_to_it() -> None:
    with TestClient(Litestar([page])) as client:
        assert "asyncapi" not in client.get("/").text


def test_it_asks_for_a_token_where_there_is_authentication() -> None:
    @post("/logout")
    async def logout() -> None: ...

    with TestClient(Litestar([page])) as without, TestClient(Litestar([page, logout])) as client:
        assert "token" not in without.get("/").text
        assert '<form id="token-form">' in client.get("/").text


def test_its_title_is_that_of_the_application_as_text() -> None:
    config = OpenAPIConfig(title="<b>Q&A</b>", version="1")
    with TestClient(Litestar([page], openapi_config=config)) as client:
        assert "<h1>&lt;b&gt;Q&amp;A&lt;/b&gt;</h1>" in client.get("/").text


class Ask(Struct, tag="ask", rename="camel"):
    the_prompt: str
    model: str = "small"


class Pair(Struct, tag="pair"):
    one: str
    other: str


@listener("/ws/ask")
async def asks(data: Pair | Ask) -> AsyncGenerator[Ask, None]:
    yield Ask("")


@listener("/ws/pairs")
async def pairs(data: Pair) -> AsyncGenerator[Pair, None]:
    yield data


@listener("/ws/of/{name:str}")
async def named(data: Ask, name: FromPath[str]) -> AsyncGenerator[Ask, None]:
    yield data


@listener("/ws/answers")
async def answers(data: Ask) -> Ask:
    return data


def test_it_has_a_card_for_each_stream_that_one_text_asks_for(settings: Settings) -> None:
    app = Litestar([asks, pairs, named, answers], plugins=[Realtime(settings, Connection, hooks)])
    with TestClient(app) as client:
        assert client.get("/page/streams").json() == [
            {"path": "ws/ask", "message": {"type": "ask"}, "field": "thePrompt"}
        ]
