"""No connection sees the state of another, as non-interference: what a client receives in a dialogue of its own is what
it receives when others speak before, in between and after.
"""

import gc
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import itemgetter
from random import Random
from typing import Any, Final

import anyio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from ..fanout.messages import is_room
from .dialogue import REFUSED, Dialogue, Run, Step, decode
from .process import Identify
from .strategies import OWNERS, Endpoint, is_array, is_object

EXAMPLES: Final = int(os.environ.get("PROOF_EXAMPLES", "40"))
"""Dialogues with each listener."""

MAX_LINES: Final = 5
"""What one client says in a dialogue, at most."""

REPEATS: Final = 8
"""How often a difference must come again before it counts: a random value may be the same for once."""

ALPHA: Final = OWNERS[0]
"""Whose answers are compared."""

END: Final = ("", None, "end of the connection")
"""Where the end of a connection stands, among what was received."""

Path = tuple[Any, ...]
"""Where a value stands: the tag of the message that it answers, the tag of its own, the fields that lead to it."""

Outcome = dict[Path, list[dict[Path, Any]]]
"""The values in all that a client received: by `ref` and tag of what is answered, and tag of the answer."""


class InterferenceError(AssertionError):
    """A connection sees the state of another. The message shows the listener, the dialogue, and what was received."""


class FoundError(BaseException):
    """A dialogue fails. Hypothesis would catch an `Exception`, and shorten the dialogue by far more tries."""


@st.composite
def dialogues(draw: st.DrawFn, proof: "Proof") -> tuple[Step, ...]:
    """Draw a dialogue in which one client speaks to a listener, and one or two others to the same or to another."""
    chance = Random(draw(st.integers(0, 2**32)))  # noqa: S311  Hypothesis itself prefers what is simple
    scripts: dict[str, list[Step]] = {}
    first: Any = None
    lines: list[Any] = []
    hurry = chance.random() < 0.5
    for owner in OWNERS[: chance.randint(2, 3)]:
        endpoint = proof.endpoint if owner == ALPHA or chance.random() < 0.7 else chance.choice(proof.endpoints)
        address, says = draw(endpoint.addresses(owner)), endpoint.messages(owner)
        drawn = [draw(says) for _ in range(chance.randint(1, MAX_LINES))]
        if endpoint is proof.endpoint and proof.dialogues:
            drawn = [*chance.choice([drawn, chance.choice(proof.dialogues)])]
        if owner == ALPHA:
            first, lines = address, drawn
        elif endpoint is proof.endpoint:
            address = chance.choice([first, address])  # where they may meet
            partly = [chance.choice([line, _mixed(line, chance.choice(lines), chance)]) for line in drawn]
            drawn = chance.choice([drawn, lines, partly])  # now and then the same
        user = chance.choice(["", "", ALPHA]) if owner != ALPHA and proof.has_users else ""
        path, subprotocols = address
        script = [Step(owner, "connects to", path, subprotocols=subprotocols, user=user)]
        leaves = chance.random() < 0.5
        for ref, line in enumerate(drawn, 1):
            is_last = leaves and ref == len(drawn)  # is answered first, or which answers still come would be chance
            waits = is_last or not hurry or chance.random() < 0.3
            script.append(Step(owner, "says", endpoint.frame(line, ref), waits))
        if leaves:
            script.append(Step(owner, "leaves"))
        scripts[owner] = script
    order = [owner for owner in (*OWNERS[1:], ALPHA) for _ in scripts.get(owner, ())]
    if chance.random() < 0.6:
        chance.shuffle(order)
    return tuple(scripts[owner].pop(0) for owner in order)


def _mixed(message: Any, other: Any, chance: Random) -> Any:
    """Return a message with some of the fields of another that has the same, or the other."""
    if not (is_object(message) and is_object(other) and message.keys() == other.keys()):
        return other
    return {name: chance.choice([message, other])[name] for name in message}


@dataclass(slots=True)
class Proof:
    """The proof for one listener of an application.

    Args:
        app: The application.
        endpoint: The listener.
        endpoints: All listeners; others may speak to any of them.
        identify: The headers of each client.
        dialogues: What clients say to the listener besides what is drawn from its annotation: messages, in order.
    """

    app: Litestar
    endpoint: Endpoint
    endpoints: Sequence[Endpoint]
    identify: Identify
    dialogues: Sequence[Sequence[Any]] = ()
    has_users: bool = field(init=False)
    """The headers of the clients differ."""
    messages: int = 0
    """Messages that reached its function."""
    sent: int = 0
    """Messages that it has sent."""
    compared: int = 0
    """Those of them that have something which is the same in every dialogue of its own."""
    ended: str = ""
    """How a connection ended that its client did not leave."""
    _volatile: set[Path] = field(default_factory=set[Path])
    """What differs between two dialogues of its own: times, ids, random values."""

    def __post_init__(self) -> None:
        self.has_users = len({str(self.identify(owner, self.endpoint.path)) for owner in OWNERS}) > 1

    def __str__(self) -> str:
        """Write what was tried, as a line."""
        tried = f"{self.messages} messages reached it, {self.compared} of {self.sent} that it sent were compared"
        return f"{self.endpoint.path}: {tried}"

    def run(self) -> None:
        """Try dialogues.

        Raises:
            InterferenceError: A client has received what it should not have.
        """
        __tracebackhide__ = True
        if isinstance(self.endpoint.shared, str):
            return
        anyio.run(anyio.sleep, 0)  # what it imports late is imported once, not in each fork
        gc.collect()
        gc.freeze()
        chosen = settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        try:
            chosen(given(dialogues(self))(self._check))()
        except FoundError as found:
            raise InterferenceError(self._shorten(*found.args)) from None
        finally:
            gc.unfreeze()

    @property
    def skipped(self) -> str:
        """Why nothing is proved about the listener; "" where something is."""
        if isinstance(self.endpoint.shared, str):
            return self.endpoint.shared
        if self.messages and not self.sent and not self.endpoint.answers:
            return "it sends nothing"
        if not self.messages and self.ended.startswith(REFUSED):
            return f"its client {self.ended}. Fix: give it other headers, in the fixture `identify` of conftest.py"
        if self.sent and not self.compared:
            return "all that it sends differs each time, as times, ids and random values do"
        return ""

    def _check(self, steps: tuple[Step, ...]) -> None:
        alone, among = self._converse(steps)
        for path, problem in self._problems(alone, among).items():
            if path not in self._volatile and self._happens_again(path, alone, among):
                raise FoundError(path, problem, among)
        self._count(alone)

    def _converse(self, steps: Sequence[Step], **options: Any) -> tuple[Run, Run]:
        """Return what happens in a dialogue where the others do not speak, and where they do."""
        alone = Dialogue(self.app, self.identify, Run(steps), ALPHA, **options).start()
        among = Dialogue(self.app, self.identify, Run(steps)).start()
        return alone(), among()

    def _shorten(self, path: Path, problem: str, among: Run) -> str:
        """Leave out each client and each step without which a dialogue fails in the same way; return the report."""
        parts = [[step for step in among.steps if step.who == who] for who in OWNERS]
        parts += [[step] for step in reversed(among.steps) if step.does != "connects to"]
        for part in parts:
            shorter = [step for step in among.steps if step not in part]
            if len(shorter) < len(among.steps) and any(step.who == ALPHA for step in shorter):
                alone, shortened = self._converse(shorter)
                if found := self._problems(alone, shortened).get(path):
                    problem, among = found, shortened
        return self._report(problem, among)

    def _happens_again(self, path: Path, alone: Run, among: Run) -> bool:
        """Repeat a dialogue. In those of its own, as much time passes as among the others, and more.

        What differs in one of them where no time passes does so by chance, in every dialogue. Else the time may explain
        it, which says nothing about other dialogues.
        """
        again, number = 0, 0
        while number < (REPEATS if again == number else 4 * REPEATS):
            pauses = [(seconds * (number % REPEATS) / 2, skipped) for seconds, skipped in among.took] if number else ()
            alone_again, among_again = self._converse(among.steps, pauses=pauses)
            differ = {each for each, _, _ in self._differences(alone, alone_again)}
            if not number:
                self._volatile |= differ
            again += path in self._problems(alone, among_again)
            number += 1
            if path in differ or again < number / 3:
                return False
        return True

    def _problems(self, alone: Run, among: Run) -> dict[Path, str]:
        """Return what a client has received that it should not have, by what it is about."""
        found: dict[Path, str] = {}
        for path, one, other in self._differences(alone, among):
            found.setdefault(path, f"{ALPHA} receives {_name(path)} {other!r}. Alone, it receives {one!r}.")
        for who, received in among.received.items():
            said = str([step for step in among.steps if step.who == who])
            outcome = str(self._outcome(among, who))
            for number in received.published:
                channel, _, by, _ = among.published[number]
                joined = among.received[by].joined if by else {}
                if joined and channel not in joined and is_room(channel):
                    problem = f"{who} receives what {by} publishes on {channel!r}, and has not joined."
                    found["channel", who, by] = problem
            for other in (each for each in among.received if each != who):
                if other in outcome and other not in said:
                    found["words", who, other] = f"{who} receives {other!r}, which it has not said."
                for channel in received.joined:
                    one, another = (self._received(among, each, channel, who, other) for each in (who, other))
                    if one != another:
                        found["order", who, other] = (
                            f"{who} and {other} have joined {channel!r}, and do not receive the same: {one}, {another}."
                        )
            for name in received.shared:
                if name not in self.endpoint.shared:
                    found["field", name] = f"Connection.{name} is one object for two connections."
        return found

    def _differences(self, one: Run, other: Run) -> Iterator[tuple[Path, Any, Any]]:
        """Yield what a client has received that differs in two runs: where, and both values."""
        first, second = one.received[ALPHA], other.received[ALPHA]
        hidden = first.sees_others | second.sees_others
        unended = (first.unended | second.unended) & first.answers.keys() & second.answers.keys()
        outcomes = [self._outcome(run, ALPHA, hidden) for run in (one, other)]
        for root in outcomes[0] | outcomes[1]:
            left, right = (outcome.get(root, []) for outcome in outcomes)
            for message, counterpart in zip(left, right, strict=False):
                for path in message | counterpart:
                    if message.get(path) != counterpart.get(path):
                        yield (*root[1:], *path), message.get(path), counterpart.get(path)
            if len(left) != len(right) and (root == END or root[0] not in unended):
                yield (*root[1:], "#"), len(left), len(right)

    def _received(self, run: Run, who: str, channel: str, *members: str) -> list[tuple[str, Any]]:
        """Return what a member received while all these were members, of each sender in its order."""
        since = max(run.received[each].joined.get(channel, inf) for each in members)
        ids = {run.received[each].connection for each in members}
        messages = [run.published[number] for number in run.received[who].published if number >= since]
        chosen = [(each.by, each.message) for each in messages if each.channel == channel and each.exclude not in ids]
        return sorted(chosen, key=itemgetter(0))

    def _outcome(self, run: Run, who: str, hidden: Collection[Any] = ()) -> Outcome:
        """Return what a client received, but for what others have published, and what is shared on purpose."""
        received = run.received[who]
        said = [decode(step.what) for step in run.steps if step.who == who and step.does == "says"]
        requests = {request.pop("ref", ""): request for request in said if is_object(request)}
        own = [] if any(step.user for step in run.steps) else [run.published[number] for number in received.published]
        hidden = {*hidden, *received.sees_others}
        answers = {ref: messages for ref, messages in received.answers.items() if ref not in hidden}
        found: Outcome = {}
        for ref, messages in (*answers.items(), ("", [each.message for each in own if each.by == who])):
            request = requests.get(ref)
            for message in messages:
                if not any(each.conceals(request) or each.conceals(message) for each in self.endpoints):
                    found.setdefault((ref, _tag(request), _tag(message)), []).append(dict(_leaves((), message)))
        found[END] = [dict(_leaves((), how)) for how in received.ended]
        return found

    def _count(self, alone: Run) -> None:
        received = alone.received[ALPHA]
        self.ended = ", ".join(filter(None, [*received.ended, alone.error])) or self.ended
        invalid = 0
        for root, messages in self._outcome(alone, ALPHA).items():
            for message in messages:
                if message.get(("code",)) == "invalid_message":
                    invalid += 1
                elif root != END:
                    fixed = [path for path in message if path != ("type",) and (*root[1:], *path) not in self._volatile]
                    self.sent += 1
                    self.compared += bool(fixed) or len(message) < 2
        said = sum(step.who == ALPHA and step.does == "says" for step in alone.steps)
        self.messages += said - invalid if received.connection else 0

    def _report(self, problem: str, run: Run) -> str:
        dialogue = "\n".join(f"    {line}" for line in run.lines)
        return (
            f"{self.endpoint.path} lets a connection see the state of another: {self.endpoint.place}\n\n"
            f"{dialogue}\n\n{problem}\n"
            "Fix: keep what belongs to a connection in Connection (state.py). Where it is shared on purpose, say so: "
            'opt={"shared": {Message: "the reason"}}.'
        )


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each value in a message. The words of a text are values of their own: one of them may be an id."""
    items: Any = ()
    if is_object(value):
        items = value.items()
    elif is_array(value):
        items = enumerate(value)
    elif isinstance(value, str) and len(words := re.findall(r"\w+|\W+", value)) > 1:
        items = enumerate(words)
    else:
        yield path, value
    for name, each in items:
        yield from _leaves((*path, name), each)


def _tag(message: Any) -> Any:
    return message.get("type") if is_object(message) else None


def _name(path: Path) -> str:
    request, tag, *names = path
    where = ".".join(str(name) for name in names)
    about = f" in answer to {request!r}" if request else ""
    return f"{where or 'text'} of {tag!r}{about}:" if tag else f"{where}{about}:"
