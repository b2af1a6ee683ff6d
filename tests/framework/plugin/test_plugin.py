"""`Realtime` among the other plugins of an application, in whatever order."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.config.app import AppConfig
from litestar.logging.config import LoggingConfig, StructLoggingConfig
from litestar.openapi import OpenAPIConfig
from litestar.plugins import InitPlugin
from litestar.testing import TestClient

from my_service import hooks
from my_service.realtime import ConfigurationError, Realtime
from my_service.realtime.observability.logs import Logging
from my_service.realtime.sessions.registry import Registry
from my_service.settings import Settings
from my_service.state import Connection

ended: list[str] = []
"""What has ended, in order."""


def resource(name: str) -> Any:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        yield
        ended.append(name)

    return lifespan


class Plugin(InitPlugin):
    """A plugin with a lifespan, that may add other plugins."""

    def __init__(self, name: str, *plugins: InitPlugin) -> None:
        self.name, self.plugins = name, plugins

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(resource(self.name))
        app_config.plugins.extend(self.plugins)
        return app_config


def realtime(**options: Any) -> Realtime:
    return Realtime(Settings(log_format="json"), Connection, hooks, **options)


@pytest.mark.parametrize(
    "plugins",
    [
        [Plugin("before"), "realtime"],
        ["realtime", Plugin("after")],
        [Plugin("before"), "realtime", Plugin("after")],
        ["realtime", Plugin("after", Plugin("late"))],
        [Plugin("before", Plugin("late", Plugin("later"))), "realtime", Plugin("after", Plugin("last", Plugin("!")))],
    ],
)
def test_connections_end_before_everything_that_they_use(monkeypatch: pytest.MonkeyPatch, plugins: list[Any]) -> None:
    async def wait_empty(*_: object) -> bool:
        ended.append("connections")
        return True

    async def on_shutdown() -> None:
        ended.append("on_shutdown")

    def add_late(app_config: AppConfig) -> AppConfig:
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(resource("on_app_init"))
        return app_config

    monkeypatch.setattr(Registry, "wait_empty", wait_empty)
    app = Litestar(
        plugins=[realtime() if plugin == "realtime" else plugin for plugin in plugins],
        lifespan=[resource("given")],
        on_shutdown=[on_shutdown],
        on_app_init=[add_late],
    )

    async def run() -> None:
        async with app.lifespan():
            ended.clear()

    asyncio.run(run())
    assert ended[0] == "connections"
    assert ended.count("connections") == 1
    assert ended[-3:] == ["on_app_init", "given", "on_shutdown"]


class Configuring(InitPlugin):
    """A plugin that configures what `Realtime` would."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.logging_config = StructLoggingConfig()
        app_config.openapi_config = OpenAPIConfig("Theirs", "2.0", path="/docs")
        return app_config


class TestWhatTheUserConfigures:
    def test_is_kept(self) -> None:
        logging, openapi = StructLoggingConfig(), OpenAPIConfig("Ours", "3.0")
        app = Litestar(plugins=[realtime()], logging_config=logging, openapi_config=openapi)
        assert app.logging_config is logging
        assert app.openapi_config is not None
        assert app.openapi_config.title == "Ours"

    @pytest.mark.parametrize("logging", [None, LoggingConfig(root={"level": "ERROR", "handlers": ["queue_listener"]})])
    def test_can_be_nothing(self, logging: LoggingConfig | None) -> None:
        app = Litestar(plugins=[realtime()], logging_config=logging, openapi_config=None)
        assert app.logging_config is logging
        assert app.openapi_config is None

    def test_is_kept_where_a_plugin_does_it(self) -> None:
        for plugins in ([Configuring(), realtime()], [realtime(), Configuring()]):
            app = Litestar(plugins=plugins)
            assert isinstance(app.logging_config, StructLoggingConfig)
            assert app.openapi_config is not None
            assert app.openapi_config.title == "Theirs"

    def test_is_ours_where_there_is_nothing(self) -> None:
        app = Litestar(plugins=[realtime()])
        assert isinstance(app.logging_config, Logging)
        assert app.openapi_config is not None
        assert app.openapi_config.title == "My Service"


@pytest.mark.parametrize("name", ["connection", "fanout", "sessions"])
def test_a_dependency_of_the_same_name_is_refused(name: str) -> None:
    async def provide_own() -> None: ...

    with pytest.raises(ConfigurationError, match=rf"provide_own .*line \d+\) is provided as '{name}'"):
        Litestar(plugins=[realtime()], dependencies={name: provide_own})


def test_ready_is_what_the_functions_say() -> None:
    problems: list[Exception] = []

    async def database() -> None:
        if problems:
            raise problems[0]

    async def cache() -> None: ...

    @get("/own")
    async def own() -> str:
        return "own"

    with TestClient(Litestar([own], plugins=[realtime(ready=[cache, database])], logging_config=None)) as client:
        assert (client.get("/ready").status_code, client.get("/ready").json()) == (200, {"status": "ready"})
        problems.append(OSError("password: 123"))
        assert (client.get("/ready").status_code, client.get("/ready").json()) == (503, {"status": "database failed"})
        problems.clear()
        assert client.get("/ready").status_code == 200
        assert client.get("/own").text == "own"


def test_ready_waits_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("my_service.realtime.http.READY_SECONDS", 0.05)
    with TestClient(Litestar(plugins=[realtime(ready=[hangs])], logging_config=None)) as client:
        assert (client.get("/ready").status_code, client.get("/ready").json()) == (503, {"status": "hangs failed"})
