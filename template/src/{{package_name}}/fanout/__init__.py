"""The fan-out: what one connection says, others hear. The template's: `copier update` improves it."""

from .channels import Fanout

__all__ = ("Fanout",)
