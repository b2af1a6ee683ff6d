"""Cases of which a few run every time; the others are `exhaustive`."""

from collections.abc import Container, Mapping
from typing import Any

import pytest


def params(cases: Mapping[str, Any], quick: Container[str]) -> list[pytest.ParameterSet]:
    """Return the parameters of a test.

    Args:
        cases: Each of them under its name.
        quick: The names of those that run every time.
    """
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.exhaustive)
        for name, case in cases.items()
    ]
