"""Every touch of a private part of Litestar, so that a new version is checked against one short file.

Each function says which version it was written for and what it relies on.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from litestar import Controller, Litestar, Router
from litestar._asgi.utils import is_valid_host
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler, WebsocketRouteHandler
from litestar.routes import BaseRoute, WebSocketRoute
from litestar.types.asgi_types import WebSocketMode
from litestar.typing import FieldDefinition
from litestar.utils import normalize_path

PACKAGE = __name__.removesuffix(".internals")
"""The package that this folder is."""

LIFESPAN_DEPENDENCIES = "connection_lifespan_dependencies"
"""2.25: the name under which a listener of Litestar provides the arguments of its lifespan."""
LISTENER_DEPENDENCIES = (LIFESPAN_DEPENDENCIES, "on_accept_dependencies", "on_disconnect_dependencies")
"""2.25: with those of its hooks."""


def lifespan_of(handler: BaseRouteHandler) -> Callable[..., Any] | None:
    """Return the `connection_lifespan` a listener was given. 2.25: `_connection_lifespan`."""
    return getattr(handler, "_connection_lifespan", None)


def handlers_of(route: BaseRoute) -> list[BaseRouteHandler]:
    """Return the handlers of a route: several for HTTP methods, one for a WebSocket."""
    handlers: list[BaseRouteHandler] = getattr(route, "route_handlers", None) or [route.route_handler]  # type: ignore[attr-defined]
    return handlers


def function_of(handler: BaseRouteHandler) -> Callable[..., Any]:
    """Return the function behind a handler. 2.25: `ListenerHandler._fn`, wrapped where it was synchronous."""
    function: Any = handler.fn
    if isinstance(handler, WebsocketListenerRouteHandler):
        function = function._fn
    return _unwrapped(function)  # type: ignore[no-any-return]


def set_function(handler: WebsocketListenerRouteHandler, run: Any, function: Callable[..., Any]) -> None:
    """Give a listener something else to run, now that Litestar has read the signature of its function.

    2.25: it is run with the socket and with what that signature takes; Litestar's own has the function as `_fn`, where
    plugins read it too.
    """
    handler.parsed_fn_signature.parameters.pop(LIFESPAN_DEPENDENCIES)
    run._fn = function
    BaseRouteHandler.__call__(handler, run)


def functions_of(handler: BaseRouteHandler) -> list[Callable[..., Any]]:
    """Return the function, the lifespan and the hooks of a registered handler: all that Litestar injects into."""
    if functions := getattr(handler, "functions", None):  # of a listener of ours
        return list(functions)
    providers = providers_of(handler)
    stubs = [providers[name].dependency for name in LISTENER_DEPENDENCIES if name in providers]
    return [function_of(handler), *(_unwrapped(inspect.unwrap(stub)) for stub in stubs)]


def _unwrapped(function: Any) -> Any:
    """Return the function that Litestar wrapped because it was synchronous, or the one given. 2.25: `func`."""
    return getattr(function, "func", function)


def websocket_handlers(values: Sequence[Any]) -> Iterator[WebsocketRouteHandler]:
    """Find the websocket handlers in what `route_handlers=[...]` may hold, before Litestar registers it."""
    for value in values:
        if isinstance(value, WebsocketRouteHandler):
            yield value
        elif isinstance(value, Router):
            yield from (route.route_handler for route in value.routes if isinstance(route, WebSocketRoute))
        elif inspect.isclass(value) and issubclass(value, Controller):
            members = (member for _, member in inspect.getmembers(value))
            yield from (member for member in members if isinstance(member, WebsocketRouteHandler))


def fields_of(handler: BaseRouteHandler) -> dict[str, FieldDefinition]:
    """Return what a registered handler, its hooks, its lifespan and its dependencies take, by name."""
    signatures = [provider.parsed_fn_signature for provider in handler.resolve_dependencies().values()]
    signatures.append(handler.parsed_fn_signature)
    return {name: field for signature in signatures for name, field in signature.parameters.items()}


def providers_of(handler: BaseRouteHandler) -> dict[str, Provide]:
    """Return the provider of each name that a registered handler takes, its dependencies' own dependencies included."""
    providers = handler.resolve_dependencies()
    found: dict[str, Provide] = {}
    pending = list(handler.parsed_fn_signature.parameters)
    while pending:
        name = pending.pop()
        if name in providers and name not in found:
            found[name] = providers[name]
            pending += providers[name].parsed_fn_signature.parameters
    return found


def yields(handler: BaseRouteHandler, name: str) -> bool:
    """Return whether a dependency of a registered handler yields, or takes one that does."""
    providers = handler.resolve_dependencies()
    dependency = providers[name].dependency
    if inspect.isasyncgenfunction(dependency) or inspect.isgeneratorfunction(dependency):
        return True
    return any(each in providers and yields(handler, each) for each in providers[name].parsed_fn_signature.parameters)


def is_provided_by(provider: Provide, package: str) -> bool:
    """Return whether what is provided comes from a package."""
    module = getattr(provider.dependency, "__module__", None) or ""
    return f"{module}.".startswith(f"{package}.")


def injected_of(handler: BaseRouteHandler) -> Iterator[tuple[Any, dict[str, FieldDefinition], dict[str, Any]]]:
    """Return each function that Litestar injects into for a handler, its parameters, and the types to validate them.

    2.25: a `SignatureModel` is a Struct, from whose annotations msgspec reads the types at the first conversion.
    """
    yield function_of(handler), handler.parsed_fn_signature.parameters, handler.signature_model.__annotations__
    for provider in providers_of(handler).values():
        signature = provider.parsed_fn_signature
        yield provider.dependency, signature.parameters, provider.signature_model.__annotations__


def skip_validation(handler: BaseRouteHandler) -> None:
    """Have Litestar inject the dependencies of this framework without validating them.

    A user's `Connection` may have fields of any type, and validation would need msgspec to know all of them.
    """
    ours = {name for name, provider in providers_of(handler).items() if is_provided_by(provider, PACKAGE)}
    for _, _, types in injected_of(handler):
        types.update(dict.fromkeys(ours & types.keys(), Any))


def query_of(route: WebSocketRoute) -> list[tuple[str, FieldDefinition, bool]]:
    """Return each parameter of the query that a route reads: its name there, what it is, and whether it is required.

    2.25: `handler_parameter_model`, a `KwargsModel`, which is no public class.
    """
    fields = fields_of(route.route_handler)
    expected = getattr(route.handler_parameter_model, "expected_query_params", ())
    read = [(each.field_alias, fields[each.field_name], each.is_required) for each in expected]
    return sorted(read, key=lambda parameter: parameter[0])


def routing_error(app: Litestar, scope: dict[str, Any]) -> HTTPException | ArithmeticError | None:
    """Return why no handler answers a request or a handshake, or None where one does.

    2.25: `ASGIRouter.handle_routing`, which keeps what it found, so that the router itself looks up nothing twice. A
    number that is too large for a `timedelta`, or no `decimal`, is an ArithmeticError there.
    """
    path = scope["path"]
    if root_path := scope.get("root_path", ""):
        path = path.split(root_path, maxsplit=1)[-1]
    try:
        app.asgi_router.handle_routing(path=normalize_path(path), method=scope.get("method"))
    except (HTTPException, ArithmeticError) as error:
        return error
    return None


def has_readable_host(scope: dict[str, Any]) -> bool:
    """Return whether the router takes the Host; else it answers a handshake with a bare 403. 2.25: `is_valid_host`."""
    return is_valid_host(next((value for name, value in scope["headers"] if name == b"host"), b""))


def websocket_paths(app: Litestar) -> list[str]:
    """Return the paths of the WebSockets of an application, each parameter as its name in braces."""
    return [route.path_format for route in app.routes if isinstance(route, WebSocketRoute)]


def owner_of(listener: WebsocketListener) -> Router:
    """Return the router of a listener class. 2.25: `_owner`."""
    return listener._owner  # pyright: ignore[reportPrivateUsage]


def has_decoder(annotation: Any) -> bool:
    """Return whether Litestar can decode text to a type that msgspec does not know. 2.25: `_decoder`."""
    return hasattr(annotation, "_decoder")


def frames_of(handler: BaseRouteHandler) -> tuple[WebSocketMode, WebSocketMode]:
    """Return the kind of frames in which a handler receives and sends JSON. 2.25: `_receive_mode`, `_send_mode`."""
    return getattr(handler, "_receive_mode", "text"), getattr(handler, "_send_mode", "text")
