"""Rounds: each server in its turn, again and again, so that what disturbs the machine disturbs all of them."""

import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from statistics import median
from typing import Any

import uvloop

from .load import Sample
from .servers import BASELINE, Peer, Server

Measurement = Callable[[Server], Coroutine[Any, Any, list[Sample]]]
Company = Callable[[Server], AbstractContextManager[object]]


class Rounds:
    """The samples of each server, one for each round."""

    def __init__(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)

    def median(self, name: str, what: str = "cost") -> float:
        """Return what a server has in the median of all rounds."""
        return median(self._column(name, what))

    def ratio(self, name: str, to: str = BASELINE, what: str = "cost") -> float:
        """Return the median of what it has for 1.00 of another in the same round."""
        pairs = zip(self._column(name, what), self._column(to, what), strict=True)
        return median(one / other for one, other in pairs)

    def against(self, others: "Rounds", name: str, what: str) -> float:
        """Return the median of what it has for 1.00 of its own in other rounds."""
        pairs = zip(self._column(name, what), others._column(name, what), strict=True)
        return median(one / other for one, other in pairs)

    def _column(self, name: str, what: str) -> list[float]:
        return [getattr(each, what) for each in self._samples[name]]


def tell(text: str) -> None:
    """Say how far it is."""
    sys.stderr.write(text)
    sys.stderr.flush()


def in_turns(
    peers: Sequence[Peer], rounds: int, measure: Measurement, *, fresh: bool = False, company: Company = nullcontext
) -> list[Rounds]:
    """Measure all of them in each round; return the rounds of each sample that is taken.

    Args:
        fresh: Start a new process for each measurement.
        company: Entered for each server when it has started.
    """
    taken: dict[str, list[list[Sample]]] = {peer.name: [] for peer in peers}
    with ExitStack() as stack:

        def start(peer: Peer, stack: ExitStack) -> Server:
            server = stack.enter_context(Server(peer))
            stack.enter_context(company(server))
            return server

        servers = {} if fresh else {peer.name: start(peer, stack) for peer in peers}
        for number in range(rounds):
            tell(f"\r  round {number + 1} of {rounds} ")
            for peer in peers:
                with ExitStack() as its_own:
                    server = servers.get(peer.name) or start(peer, its_own)
                    taken[peer.name].append(uvloop.run(measure(server)))
                tell(".")
    tell("\n")
    kinds = range(len(next(iter(taken.values()))[0]))
    return [Rounds({name: [samples[kind] for samples in each] for name, each in taken.items()}) for kind in kinds]
