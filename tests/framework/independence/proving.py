"""The proof of state independence, for the handlers of a test."""

from typing import Any

from litestar import Litestar
from litestar.routes import WebSocketRoute

from my_service import hooks
from my_service.realtime import ConnectionInfo, Realtime
from my_service.realtime.testing import credentials
from my_service.realtime.testing.independence import Proof
from my_service.realtime.testing.process import settings_for_tests
from my_service.realtime.testing.strategies import Endpoint
from my_service.settings import Settings


def prove(
    *handlers: Any,
    connection: type[ConnectionInfo] = ConnectionInfo,
    hooks: Any = hooks,
    dialogues: Any = (),
    **claims: Any,
) -> list[Proof]:
    """Prove it for each of the handlers, to clients with such claims, and return what was found out."""
    settings = Settings.load(**settings_for_tests(), max_messages_per_second=0)
    app = Litestar([*handlers], plugins=[Realtime(settings, connection, hooks)])
    endpoints = [Endpoint(route) for route in app.routes if isinstance(route, WebSocketRoute)]

    def identify(user: str, _: str) -> dict[str, str]:
        return credentials(user, **claims)

    documented = [endpoint for endpoint in endpoints if not endpoint.path.startswith("/asyncapi")]
    proofs = [Proof(app, endpoint, endpoints, identify, dialogues) for endpoint in documented]
    for proof in proofs:
        proof.run()
    return proofs
