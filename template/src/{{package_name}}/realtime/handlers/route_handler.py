"""`ListenerRouteHandler`: the route handler behind `@listener` and `Listener`."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import UnionType
from typing import Any, Self

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from litestar.types import AnyCallable

from ..checks.hooks import check_hook
from ..checks.lifespans import check_lifespan
from ..checks.listeners import check_listener_function, check_sends
from ..checks.parameters import check_parameters
from ..errors import ConfigurationError, source_location
from ..internals import frames_of, function_of
from ..sessions.cause import Cause
from ..sessions.info import ConnectionInfo
from ..sessions.lifespan import connection_context
from ..sessions.limits import PONGS
from ..sessions.session import HookPair, Session, Socket
from .codecs import Decode, make_decoder, make_receive, make_send
from .injection import PASSED, bind_arguments, request_arguments, request_dependencies

Lifespan = Callable[..., AbstractAsyncContextManager[Any]]
"""A function under `@asynccontextmanager`. Type checkers refuse one that lacks the decorator."""

Messages = type[msgspec.Struct] | UnionType
"""A message, or several: `Joined`, `Joined | Left`."""


class ListenerRouteHandler(WebsocketListenerRouteHandler):
    """Litestar's route handler for listeners, in `connection_lifespan`, with messages that are validated.

    Args:
        path: As in `listener`, with all that is not named here.
        on_accept: The hook of a `Listener`, after that of the service.
        on_disconnect: The hook of a `Listener`, before that of the service.
    """

    __slots__ = (
        "_call_on_accept",
        "_call_on_disconnect",
        "_client_speaks_first",
        "_decode",
        "_enter_lifespan",
        "_receive",
        "_requested",
        "_send",
        "sends",
    )

    def __init__(
        self,
        path: str | list[str] | None,
        *,
        client_speaks_first: bool = False,
        connection_lifespan: Lifespan | None = None,
        sends: Messages | None = None,
        on_accept: AnyCallable | None = None,
        on_disconnect: AnyCallable | None = None,
        dependencies: Mapping[str, Provide | AnyCallable] | None = None,
        **options: Any,
    ) -> None:
        if connection_lifespan:
            check_lifespan(connection_lifespan)
        for hook in (on_accept, on_disconnect):
            if hook:
                check_hook(hook)
                check_parameters(hook, "hook", PASSED)
        self.sends = sends
        self._client_speaks_first = client_speaks_first
        self._enter_lifespan = bind_arguments(connection_lifespan)
        self._call_on_accept, self._call_on_disconnect = bind_arguments(on_accept), bind_arguments(on_disconnect)
        self._decode: Decode | None = None
        self._receive: Callable[[Socket], Awaitable[Any]] | None = None
        self._send: Callable[[Socket, Any], Awaitable[None]] | None = None
        requests = {
            "on_accept_dependencies": request_arguments(on_accept),
            "on_disconnect_dependencies": request_arguments(on_disconnect),
            "lifespan_dependencies": request_arguments(connection_lifespan),
        }
        options |= {"dto": None, "return_dto": None}
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            path,
            on_accept=requests["on_accept_dependencies"],
            on_disconnect=requests["on_disconnect_dependencies"],
            dependencies=dependencies,
            **options,
        )
        self._requested = {name: Provide(request) for name, request in requests.items() if request}
        self.dependencies = {**(dependencies or {}), **self._requested}

    def __call__(self, fn: AnyCallable) -> Self:
        check_listener_function(fn)
        if self.sends is not None:
            check_sends(self.sends, fn)
        return super().__call__(fn)

    def on_registration(self, app: Litestar) -> None:
        # Litestar begins a task for each dependency that waits for no other, where there are several. As this one waits
        # for `connection`, a listener that takes nothing else pays for no task.
        first = {"connection"} & self.dependency_name_set
        lifespan = Provide(request_dependencies([*first, *self._requested]))
        self.dependencies = {**(self.dependencies or {}), "connection_lifespan_dependencies": lifespan}
        super().on_registration(app)
        self.resolve_receive_handler()  # builds the decoder: a type that cannot be decoded stops the service here

    def default_connection_lifespan(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        socket: Socket,
        on_accept_dependencies: dict[str, Any] | None = None,
        on_disconnect_dependencies: dict[str, Any] | None = None,
        lifespan_dependencies: dict[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        async def on_accept(socket: Socket, connection: ConnectionInfo) -> None:
            if self._call_on_accept:
                await self._call_on_accept({"socket": socket, "connection": connection}, on_accept_dependencies)

        async def on_disconnect(socket: Socket, connection: ConnectionInfo, cause: Cause) -> None:
            if self._call_on_disconnect:
                passed = {"socket": socket, "connection": connection, "cause": cause}
                await self._call_on_disconnect(passed, on_disconnect_dependencies)

        has_hooks = self._call_on_accept or self._call_on_disconnect
        inner = None
        if self._enter_lifespan:
            passed = {"socket": socket, "connection": Session.of(socket).ensure_connection()}
            inner = partial(self._enter_lifespan, passed, lifespan_dependencies)
        return connection_context(
            socket,
            [HookPair(on_accept, on_disconnect)] if has_hooks else [],
            inner,
            client_speaks_first=self._client_speaks_first,
        )

    def resolve_receive_handler(self) -> Callable[[Socket], Awaitable[Any]]:
        if self._receive is None:
            self._receive = make_receive(self._resolve_decoder(), answers_pings=self.answers_pings)
        return self._receive

    def resolve_send_handler(self) -> Callable[[Socket, Any], Awaitable[None]]:  # type: ignore[override]
        if self._send is None:
            self._send = make_send(self.default_serializer, frames_of(self)[1])
        return self._send

    @property
    def answers_pings(self) -> bool:
        """Whether a `ping` in JSON is answered here, because it is not a message that the handler takes."""
        if self._takes_binary:
            return False
        try:
            self._resolve_decoder()({"text": next(iter(PONGS))})
        except msgspec.DecodeError:
            return True
        return False

    @property
    def _takes_binary(self) -> bool:
        field = self.parsed_data_field
        return frames_of(self)[0] == "binary" or (field is not None and field.annotation is bytes)

    def _resolve_decoder(self) -> Decode:
        if self._decode is None:
            try:
                self._decode = make_decoder(
                    self.parsed_data_field, self.default_deserializer, binary=self._takes_binary
                )
            except (TypeError, NameError) as error:
                raise ConfigurationError(
                    source_location(function_of(self)),
                    f"no message can be decoded as `data`: {error}",
                    "make each message a msgspec.Struct with its own tag, as in messages.py, and import the types of "
                    "its fields outside of `if TYPE_CHECKING:`",
                ) from None
        return self._decode
