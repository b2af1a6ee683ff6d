"""How a handler says that what looks like a mistake is meant: `opt={"allow": ["name"]}`, for each name in an error."""

from collections.abc import Mapping
from typing import Any


def is_allowed(opt: Mapping[str, Any] | None, name: str) -> bool:
    """Return whether the `opt` of a handler, or of a router around it, allows a name."""
    return name in (opt or {}).get("allow", ())


def opt_out_hint(name: str) -> str:
    """Return what to write to allow a name, for the end of an error."""
    return f'opt={{"allow": ["{name}"]}}'
