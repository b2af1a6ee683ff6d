"""What Litestar injects: into the function of a listener, and into all else that is called for it."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, get_args

from litestar.types import AnyCallable

from ..checks.injection import resolve_hints

PASSED = ("socket", "connection", "cause")
"""The names of what hooks and lifespans are called with; Litestar injects everything else."""


def binder(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], partial[Any]]:
    """Return a function that binds to `function` what it takes of the arguments that there are.

    Its signature is read once, and not for each connection.
    """
    names = tuple(inspect.signature(function).parameters)

    def bind(available: Mapping[str, Any]) -> partial[Any]:
        return partial(function, **{name: available[name] for name in names if name in available})

    return bind


def injectable(
    function: AnyCallable, scopes: Mapping[str, AnyCallable], others: Iterable[AnyCallable | None]
) -> AnyCallable:
    """Return a function with the signature that Litestar is to see.

    It takes what Litestar injects into `function`, into its scopes, and into the others: the hooks and the lifespan. It
    returns one item of a stream.
    """
    hints: dict[str, Any] = {}
    parameters: dict[str, inspect.Parameter] = {}
    takers = [(each, tuple(scopes)) for each in (function, *scopes.values())]
    for each, passed in [*takers, *((other, PASSED) for other in others if other)]:
        each_hints = resolve_hints(each, "listener")
        for name, parameter in inspect.signature(each).parameters.items():
            if name in each_hints and name not in passed and name not in parameters:
                hints[name] = each_hints[name]
                keyword = inspect.Parameter.KEYWORD_ONLY
                parameters[name] = parameter.replace(kind=keyword, annotation=hints[name])
    returned = resolve_hints(function, "listener").get("return", Any)
    hints["return"] = get_args(returned)[0] if inspect.isasyncgenfunction(function) else returned

    async def signature(**_: Any) -> None: ...

    signature.__annotations__ = hints
    signature.__name__ = function.__name__
    signature.__doc__ = function.__doc__
    vars(signature)["__signature__"] = inspect.Signature([*parameters.values()], return_annotation=hints["return"])
    return signature
