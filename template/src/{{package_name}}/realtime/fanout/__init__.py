"""The fan-out: what one connection says, others hear, on whatever node they are.

The template's: `copier update` improves it.
"""

from .engine import FanoutUnavailableError
from .messages import Gap
from .plugin import Fanout

__all__ = ("Fanout", "FanoutUnavailableError", "Gap")
