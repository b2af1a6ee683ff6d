"""What the tests of the service are made of: fixtures, clients and credentials. The service itself never imports it.

`tests/conftest.py` takes the fixtures from here. A test takes `client` to open any number of sockets inside its own
process, or `start` where it needs a process of its own: for signals, ports and the network.
"""

from .credentials import credentials
from .fixtures import app, client, environment, pytest_configure, settings, start
from .process import TIMEOUT, Service, Start, run

__all__ = (
    "TIMEOUT",
    "Service",
    "Start",
    "app",
    "client",
    "credentials",
    "environment",
    "pytest_configure",
    "run",
    "settings",
    "start",
)
