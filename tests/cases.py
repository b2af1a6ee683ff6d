"""Cases of which a few run every time; the others are `exhaustive`."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import pytest


def params(cases: Iterable[str] | Mapping[str, Any], quick: Container[str]) -> list[pytest.ParameterSet]:
    """Return the parameters of a test or a fixture.

    Args:
        cases: Names, or what a name stands for under it.
        quick: The names of those that run every time.
    """
    named = cases if isinstance(cases, Mapping) else {name: name for name in cases}
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.exhaustive)
        for name, case in named.items()
    ]
