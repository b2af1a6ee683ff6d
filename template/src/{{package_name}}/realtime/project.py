"""The project around this folder: the application and the settings that its own files define."""

from importlib import import_module
from typing import Any

from litestar import Litestar

from .parts import RealtimeSettings
from .settings import PACKAGE, CoreSettings


def load_settings(**overrides: Any) -> RealtimeSettings:
    """Read `Settings` of the service's settings.py.

    Args:
        overrides: Values that win over the environment; None stands for "not given".

    Returns:
        The settings, of the service's own class.

    Raises:
        ConfigurationError: A variable is unknown or has a wrong value.
    """
    settings: RealtimeSettings = import_module(f"{PACKAGE}.settings").Settings.load(**overrides)
    return settings


def load_app(settings: CoreSettings | None = None) -> Litestar:
    """Build the application with `create_app` of the service's app.py, which imports the listeners.

    Args:
        settings: The settings of the service; read from the environment by default.

    Raises:
        ConfigurationError: The application has a mistake with which it does not start.
    """
    app: Litestar = import_module(f"{PACKAGE}.app").create_app(settings)
    return app
