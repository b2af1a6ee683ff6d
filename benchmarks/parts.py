"""The parts of a run: what is measured of which servers, and how it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from . import load
from .report import Chart, Findings
from .rounds import Rounds, in_turns
from .servers import BASELINE, Peer, baseline, peers, rendered, service


@dataclass
class Stage:
    """A folder to work in, and how long to measure."""

    folder: Path
    rounds: int
    seconds: float
    connections: int

    @cached_property
    def service(self) -> Peer:
        return service(rendered(self.folder))

    @cached_property
    def pair(self) -> list[Peer]:
        """The two of which the promises speak."""
        return [baseline(), self.service]

    @cached_property
    def all(self) -> list[Peer]:
        return [*self.pair, *peers(self.folder)]


def versions(servers: Sequence[Peer]) -> dict[str, str]:
    return {name: number for peer in servers for name, number in peer.versions().items()}


def ordered(rounds: Rounds) -> dict[str, float]:
    """The ratios, the smallest first."""
    return dict(sorted(((name, rounds.ratio(name)) for name in rounds), key=lambda each: each[1]))


def echo(stage: Stage) -> Findings:
    """A message and its answer, on 64 connections, with 1 and with 16 on their way."""
    one, many = (
        in_turns(stage.all, stage.rounds, partial(load.echo, window=window, seconds=stage.seconds))
        for window in (1, 16)
    )
    rows = [
        [
            name,
            *[
                text
                for rounds in (one, many)
                for text in (
                    f"{rounds.ratio(name):.2f}",
                    f"{rounds.median(name):.1f}",
                    f"{rounds.median(name, 'p50'):.1f} / {rounds.median(name, 'p99'):.1f}",
                )
            ],
        ]
        for name in ordered(one)
    ]
    head = ["CPU for a message", *["window 1", "µs", "p50 / p99, ms"], *["window 16", "µs", "p50 / p99, ms"]]
    charts = {"echo": Chart("Echo, window 1: CPU for a message, plain Litestar = 1.00", ordered(one))}
    return Findings(head, rows, versions(stage.all), charts)


def churn(stage: Stage) -> Findings:
    """Connect, one message, close."""
    rounds = in_turns(stage.all, stage.rounds, partial(load.churn, seconds=stage.seconds))
    rows = [[name, f"{ratio:.2f}", f"{rounds.median(name):.0f}"] for name, ratio in ordered(rounds).items()]
    charts = {"churn": Chart("Connect, one message, close: CPU, plain Litestar = 1.00", ordered(rounds))}
    return Findings(["connect, one message, close", "CPU", "µs"], rows, versions(stage.all), charts)


def memory(stage: Stage) -> Findings:
    """Idle connections, of clients that offer deflate and of those that do not."""
    take = partial(in_turns, rounds=max(1, stage.rounds // 2), fresh=True)
    without = take(stage.all, measure=lambda server: load.idle(server, stage.connections))
    offered = take(stage.pair, measure=lambda server: load.idle(server, stage.connections, load.DEFLATE))
    rows = [
        [
            name,
            f"{ratio:.2f}",
            f"{without.median(name):.1f}",
            f"{offered.median(name):.1f}" if name in offered else "",
            f"{1024**2 / without.median(name):,.0f}",
        ]
        for name, ratio in ordered(without).items()
    ]
    bars = {name: without.median(name) for name in ordered(without)}
    bars |= {f"{BASELINE}, client offers deflate": offered.median(BASELINE)}
    charts = {"memory": Chart("KiB of memory for an idle connection", bars)}
    head = ["idle connection", "memory", "KiB", "KiB, client offers deflate", "fit into a GiB"]
    return Findings(head, rows, versions(stage.all), charts)


PARTS: dict[str, Callable[[Stage], Findings]] = {"echo": echo, "churn": churn, "memory": memory}
