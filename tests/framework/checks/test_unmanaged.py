"""A WebSocket handler without `connection_lifespan` has no hooks: it says that this is meant, or nothing starts."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar import Controller, Litestar, Router, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.config.app import AppConfig
from litestar.handlers import (
    WebsocketListener,
    websocket_listener,
    websocket_stream,  # pyright: ignore[reportUnknownVariableType]
)
from litestar.plugins import InitPlugin

from my_service import hooks
from my_service.realtime import ConfigurationError, Realtime, Socket, connection_lifespan, listener
from my_service.settings import Settings
from my_service.state import Connection


@websocket("/plain")
async def plain(socket: Socket) -> None: ...


@websocket_listener("/plain")
async def plain_listener(data: str) -> None: ...


@websocket_stream("/plain")
async def plain_stream(socket: Socket) -> AsyncGenerator[str, None]:
    yield ""


class PlainListener(WebsocketListener):
    path = "/plain"

    async def on_receive(self, data: str) -> None: ...


class Grouped(Controller):
    path = "/plain"

    @websocket()
    async def plain(self, socket: Socket) -> None: ...


class Plugin(InitPlugin):
    """A plugin that registers a handler, or another plugin that does."""

    def __init__(self, *plugins: InitPlugin) -> None:
        self.plugins = plugins

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.plugins.extend(self.plugins)
        if not self.plugins:
            app_config.route_handlers.append(plain)
        return app_config


def start(*handlers: Any, plugins: Any = (), **options: Any) -> Litestar:
    return Litestar([*handlers], plugins=[Realtime(Settings(), Connection, hooks, **options), *plugins])


@pytest.mark.parametrize("handler", [plain, plain_listener, plain_stream, PlainListener, Grouped])
@pytest.mark.parametrize("in_router", [False, True])
def test_it_is_refused(handler: Any, in_router: bool) -> None:
    given = Router("/x", route_handlers=[handler]) if in_router else handler
    path = "/x/plain" if in_router else "/plain"
    with pytest.raises(ConfigurationError) as error:
        start(given)
    message = str(error.value)
    assert "test_unmanaged.py, line " in message
    assert f"handles {path} without connection_lifespan, so no hook runs for its connections" in message
    assert "@websocket_listener with connection_lifespan=connection_lifespan." in message  # the others do not take it
    assert 'To run without it, add opt={"allow": ["unmanaged"]}' in message
    assert f"unmanaged=['{path}']" in message
    start(given, unmanaged=[path])


@pytest.mark.parametrize("plugins", [[Plugin()], [Plugin(Plugin())], [Plugin(Plugin(Plugin()))]])
def test_a_handler_of_another_plugin_is_refused_however_late_it_comes(plugins: list[Plugin]) -> None:
    with pytest.raises(ConfigurationError, match="handles /plain without"):
        start(plugins=plugins)
    start(plugins=plugins, unmanaged=["plain/"])


def test_the_handlers_of_litestar_channels_are_named_by_their_path() -> None:
    channels = ChannelsPlugin(MemoryChannelsBackend(), channels=["news"], create_ws_route_handlers=True)
    with pytest.raises(ConfigurationError, match=r"ChannelsPlugin.* handles /news without"):
        start(plugins=[channels])
    start(plugins=[channels], unmanaged=["/news"])


@pytest.mark.parametrize(
    ("options", "given", "example"),
    [
        ({"unmanaged": "/plain"}, "unmanaged='/plain'", r'unmanaged=\["/vite-hmr"\]'),
        ({"unmanaged": ["/plain", 5]}, r"unmanaged=\['/plain', 5\]", r'unmanaged=\["/vite-hmr"\]'),
        ({"unmanaged": None}, "unmanaged=None", r'unmanaged=\["/vite-hmr"\]'),
        ({"ready": 5}, "ready=5", r"ready=\[check_database\]"),
    ],
)
def test_what_is_not_a_list_is_refused(options: dict[str, Any], given: str, example: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^Realtime\(\.\.\.\) is called with {given}\.\nFix: pass a list, as in {example}\.$"
    ):
        start(plain, **options)


@pytest.mark.parametrize(
    ("key", "value", "example"),
    [
        ("allow", "unmanaged", "unmanaged"),
        ("allow", "un", "un"),
        ("subprotocols", "ocpp1.6", "ocpp1.6"),
        *((key, value, "name") for key in ("allow", "subprotocols") for value in (5, True, None)),
    ],
)
def test_an_opt_that_is_not_a_list_is_refused(key: str, value: Any, example: str) -> None:
    @websocket("/meant", connection_lifespan=connection_lifespan, opt={key: value})
    async def meant(socket: Socket) -> None: ...

    @listener("/meant")
    async def ours(data: str) -> None: ...

    for handler in (meant, Router("/", route_handlers=[ours], opt={key: value})):
        with pytest.raises(ConfigurationError) as error:
            start(handler)
        assert "test_unmanaged.py, line " in str(error.value)
        assert f"has opt={{{key!r}: {value!r}}}, which is not a list" in str(error.value)
        assert f'Fix: write opt={{"{key}": ["{example}"]}}.' in str(error.value)


@pytest.mark.parametrize("name", ["unmanaged", "connection"])
def test_it_may_say_that_it_is_meant(name: str) -> None:
    @websocket("/meant", opt={"allow": [name]})
    async def meant(socket: Socket) -> None:
        async with connection_lifespan(socket):
            pass

    start(meant, Router("/", route_handlers=[plain], opt={"allow": [name]}))
