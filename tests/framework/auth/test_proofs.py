"""The proofs reach a listener that asks for a role, where the test says that its clients have it."""

from typing import Any

import pytest
from msgspec import Struct

from my_service.realtime import listener, requires_role

from ..independence.proving import prove


class Say(Struct, tag="say"):
    text: str


@listener("/agents", guards=[requires_role("agent")])
async def agents(data: Say) -> Say:
    return data


@pytest.mark.parametrize(("claims", "is_reached"), [({}, False), ({"roles": ["agent"]}, True)])
def test_a_role_lets_the_proof_in(claims: dict[str, Any], is_reached: bool) -> None:
    (proof,) = prove(agents, **claims)
    assert bool(proof.messages) == is_reached
    assert bool(proof.skipped) == (not is_reached)
