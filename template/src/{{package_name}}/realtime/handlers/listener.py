"""`@listener` and `Listener`: Litestar's listeners, in `connection_lifespan`, with messages that are validated."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.types import AnyCallable
from litestar.types.asgi_types import WebSocketMode

from ..checks.listeners import check_keywords
from ..errors import ConfigurationError
from ..internals import owner_of
from ..sessions.session import Socket
from .injection import Scope
from .route_handler import Lifespan, ListenerRouteHandler, Messages

Handler = Callable[..., Awaitable[Any] | AsyncGenerator[Any, None]]
"""An async function, or one that yields; it takes `data`, the typed message, and whatever Litestar can inject."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None] | None]
"""Litestar's guard, with the type parameters that strict type checkers miss in Litestar's own."""


class Options(TypedDict, total=False):
    """The options of a listener: keywords of `@listener`, and attributes of a `Listener`."""

    cancel_on_disconnect: bool
    client_speaks_first: bool
    concurrency: int
    connection_lifespan: Lifespan | None
    dependencies: Mapping[str, Provide | AnyCallable] | None
    guards: list[Guard] | None
    sends: Messages | None
    middleware: list[Any] | None
    name: str | None
    opt: dict[str, Any] | None
    per_message: Mapping[str, Scope] | None
    receive_mode: WebSocketMode
    send_mode: WebSocketMode
    signature_namespace: Mapping[str, Any] | None
    type_decoders: Sequence[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]] | None
    type_encoders: Mapping[Any, Callable[[Any], Any]] | None
    websocket_class: type[Socket] | None


def listener(path: str | list[str], **options: Unpack[Options]) -> Callable[[Handler], ListenerRouteHandler]:
    """Make an async function the listener of a path.

    The function is called with each message as `data`, decoded and validated by its annotation. What it returns is
    sent; None is not. A function that yields answers with a stream: its items are sent in order, while the connection
    reads on. A message that cannot be decoded is answered with an `ErrorMessage`, and the function is not called; it
    refuses a message by `MessageError`. Every answer carries the `ref` of its message, if that had one.

    Args:
        path: The path, or several, with path parameters as in `/ws/rooms/{room:str}`.
        cancel_on_disconnect: Cancel the function as soon as the client is gone. Otherwise it runs to its end. A stream
            is cancelled in any case.
        client_speaks_first: Close a client that sends no message within FIRST_MESSAGE_SECONDS, with code 1008.
        concurrency: Messages of one connection that are handled at once, each in a task of its own. With 1 they are
            answered in order. Beyond it the connection is not read. Not for a function that yields: MAX_STREAMS bounds
            it.
        connection_lifespan: An async context manager of this listener's own, inside the lifespan of each connection:
            entered after `on_accept`, with the socket accepted, and left before `on_disconnect`. It may take `socket`,
            `connection` and whatever Litestar can inject.
        dependencies: Litestar's providers, by the names under which they are injected.
        guards: Litestar's guards, which may refuse a handshake.
        sends: The messages that clients receive here besides the answers, as in `sends=Joined | Left`, whoever
            publishes them. They are documented with the answers.
        middleware: Litestar's middleware for this path.
        name: The name of the route, for Litestar's `route_reverse`.
        opt: Litestar's options, readable by guards and middleware. `opt={"allow": [...]}` allows what a check refuses.
        per_message: What is made for each message and undone before its answer is sent, such as the transaction of a
            database: async generator functions that yield once, by the names under which the function takes it. They
            may take each other, and whatever Litestar can inject. What is published inside is held back until they have
            been left without an exception. For a stream they last as long as the stream.
        receive_mode: The kind of frames that messages come in: "text", or "binary" for JSON in binary frames.
        send_mode: The kind of frames that answers in JSON are sent in.
        signature_namespace: Names for Litestar to resolve annotations with.
        type_decoders: Litestar's decoders for the types in messages that msgspec does not know.
        type_encoders: Litestar's encoders for the types in answers that msgspec does not know.
        websocket_class: A subclass of Litestar's `WebSocket`, injected as `socket`.

    Returns:
        A decorator; it returns what `route_handlers=[...]` takes.

    Raises:
        ConfigurationError: The function or an option is wrong; the message names the place, the mistake and the fix.
    """

    def decorate(function: Handler) -> ListenerRouteHandler:
        check_keywords(options, Options.__annotations__, function)
        return ListenerRouteHandler(path, **options)(function)

    return decorate


class Listener(WebsocketListener):
    """A listener as a class: `path`, `on_receive`, and where it needs them `on_accept` and `on_disconnect`.

    `on_receive` is called as the function under `@listener` is. `on_accept` and `on_disconnect` run inside the hooks of
    the service. They take what they name: `socket`, `connection`, `cause` (in `on_disconnect`), and whatever Litestar
    can inject. The options of `@listener` are attributes of the class.

    There is one instance for all connections, so it keeps nothing: setting an attribute on it raises
    `ConfigurationError`. What belongs to a connection goes into `Connection`.
    """

    client_speaks_first: ClassVar[bool] = False
    """Close a client that sends no message within FIRST_MESSAGE_SECONDS, with code 1008."""
    cancel_on_disconnect: ClassVar[bool] = False
    """Cancel `on_receive` as soon as the client is gone. Otherwise it runs to its end."""
    guards: Sequence[Guard] | None = None  # type: ignore[assignment]  # pyright: ignore
    """Litestar's guards, which may refuse a handshake. A tuple: linters refuse a list in a class."""
    concurrency: ClassVar[int] = 1
    """Messages of one connection that are handled at once."""
    connection_lifespan: ClassVar[Lifespan | None] = None
    """An async context manager inside the lifespan of each connection, between the hooks and the messages."""
    per_message: ClassVar[Mapping[str, Scope] | None] = None
    """What is made for each message and undone before its answer is sent."""
    sends: ClassVar[Messages | None] = None
    """The messages that clients receive here besides the answers, as in `sends = Joined | Left`."""

    _serves = False

    def to_handler(self) -> ListenerRouteHandler:
        """Make the route handler; Litestar calls this once, when it registers the class.

        Returns:
            The handler.

        Raises:
            ConfigurationError: A method or an attribute is wrong.
        """
        cls: Any = type(self)
        hooks = {
            name: getattr(self, name)
            for name in ("on_accept", "on_disconnect")
            if getattr(cls, name) is not getattr(WebsocketListener, name)
        }
        options = {name: getattr(cls, name) for name in Options.__annotations__}
        options["guards"] = self.guards and [*self.guards]  # Litestar adds lists to it
        handler = ListenerRouteHandler(self.path, **hooks, **options)(self.on_receive)
        handler.owner = owner_of(self)
        self._serves = True
        return handler

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, before the class is registered.

        Raises:
            ConfigurationError: It is registered, so that each connection would see the value.
        """
        if self._serves:
            raise ConfigurationError(
                type(self),
                f"sets self.{name} while it serves; the listener is one object for all connections, "
                "so each of them would see it",
                f"make {name} a field of Connection in state.py and set connection.{name}",
            )
        super().__setattr__(name, value)
