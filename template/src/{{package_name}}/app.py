"""Yours: the application. `copier update` never touches this file."""

from litestar import Litestar

from . import hooks
from .listeners.echo import echo
from .listeners.rooms import Rooms
from .realtime import Realtime
from .settings import Settings
from .state import Connection


def create_app(settings: Settings | None = None) -> Litestar:
    """Build the application.

    Raises:
        ConfigurationError: A setting, a hook or a handler is wrong; the message names the place, the mistake and the
            fix.
    """
    settings = settings or Settings.load()
    return Litestar(
        route_handlers=[
            echo,
            Rooms,
        ],
        plugins=[Realtime(settings, Connection, hooks)],
    )
