"""The document as it is served and written; that it is complete is a proof of the generated project."""

import json
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from my_service.realtime.__main__ import main
from my_service.realtime.asyncapi.plugin import Documentation
from my_service.realtime.sessions.cause import CLOSE_CODES


@pytest.fixture
def document(app: Litestar) -> dict[str, Any]:
    return app.plugins.get(Documentation).get_asyncapi_schema(app)


def test_the_close_codes_are_documented(document: dict[str, Any]) -> None:
    assert document["components"]["x-close-codes"].keys() == {str(code) for code in CLOSE_CODES}
    for code, each in CLOSE_CODES.items():
        assert f"| {code} | {each.closes} | {each.meaning} |" in document["info"]["description"]


def test_it_is_served_and_written(
    client: TestClient[Litestar], document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.get("/asyncapi/asyncapi.json").json() == document
    assert client.get("/asyncapi").status_code == 200
    assert main(["asyncapi"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_the_documentation_runs_no_script_of_another_host_and_none_inline(client: TestClient[Litestar]) -> None:
    answer = client.get("/asyncapi")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert "://" not in answer.headers["content-security-policy"]
