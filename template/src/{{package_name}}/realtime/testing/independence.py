"""No connection sees the state of another, as non-interference: what a client receives in a dialogue of its own is what
it receives when others speak before, in between and after.
"""

import gc
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

import anyio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from ..fanout.messages import is_room
from .dialogue import REFUSED, Run, Step, decode, start
from .process import Identify
from .strategies import OWNERS, Endpoint, is_array, is_object

EXAMPLES: Final = int(os.environ.get("PROOF_EXAMPLES", "40"))
"""Dialogues with each listener."""

MAX_LINES: Final = 5
"""What one client says in a dialogue, at most."""

REPEATS: Final = 8
"""How often a difference must come again before it counts: a random value may be the same for once."""

MAX_SHRINKS: Final = 150
"""Dialogues that are tried in search of a shorter one that fails too."""

ALPHA: Final = OWNERS[0]
"""Whose answers are compared."""

END: Final = ("", None, "end of the connection")
"""Where the end of a connection stands, among what was heard."""

Path = tuple[Any, ...]
"""Where a value stands: the tag of the message that it answers, the tag of its own, the fields that lead to it."""

Outcome = dict[Path, list[dict[Path, Any]]]
"""The values in all that a client heard: by `ref` and tag of what is answered, and tag of the answer."""


class InterferenceError(AssertionError):
    """A connection sees the state of another. The message has the listener, the dialogue, and what was heard."""


@st.composite
def dialogues(draw: st.DrawFn, proof: "Proof") -> tuple[Step, ...]:
    """Draw a dialogue in which one client speaks to a listener, and one or two others to the same or to another."""
    target, own = proof.endpoint, proof.dialogues
    scripts: dict[str, list[Step]] = {}
    first: Any = None
    lines: list[Any] = []
    has_users = len({str(proof.identify(owner, target.path)) for owner in OWNERS}) > 1
    hurry = draw(st.booleans())
    waits = st.sampled_from([True, False, False] if hurry else [True])
    for owner in OWNERS[: 2 + draw(st.booleans())]:
        endpoint = target if owner == ALPHA else draw(st.sampled_from([target, target, target, *proof.endpoints]))
        address, says = draw(endpoint.addresses(owner)), endpoint.messages(owner)
        if owner != ALPHA and endpoint is target:
            address = first if draw(st.booleans()) else address  # where they may meet
            said = st.sampled_from(lines)  # now and then the same, or a part of it
            says = st.one_of(says, says, said, st.builds(_mixed, says, said, st.integers(0)))
        drawn = draw(st.lists(says, min_size=1, max_size=MAX_LINES))
        if own and endpoint is target:
            drawn = [*draw(st.just(drawn) | st.sampled_from(own))]
        if owner == ALPHA:
            first, lines = address, drawn
        user = draw(st.sampled_from(["", "", ALPHA] if has_users else [""])) if owner != ALPHA else ""
        path, subprotocols = address
        script = [Step(owner, "connects to", path, subprotocols=subprotocols, user=user)]
        leaves = draw(st.booleans())
        for ref, line in enumerate(drawn, 1):
            is_last = leaves and ref == len(drawn)  # is answered first, or which answers still come would be chance
            script.append(Step(owner, "says", endpoint.frame(line, ref), draw(waits) or is_last))
        if leaves:
            script.append(Step(owner, "leaves"))
        scripts[owner] = script
    order = [owner for owner in (*OWNERS[1:], ALPHA) for _ in scripts.get(owner, ())]
    order = draw(st.permutations(order)) if hurry or draw(st.booleans()) else order
    return tuple(scripts[owner].pop(0) for owner in order)


def _mixed(message: Any, other: Any, choice: int) -> Any:
    """Return a message with some of the fields of another that has the same."""
    if not (is_object(message) and is_object(other) and message.keys() == other.keys()):
        return message
    return {name: (other if choice >> at & 1 else message)[name] for at, name in enumerate(message)}


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
    messages: int = 0
    """Messages that reached its function."""
    heard: int = 0
    """Messages that it has sent."""
    compared: int = 0
    """Those of them that have something which is the same in every dialogue of its own."""
    ended: str = ""
    """How a connection ended that its client did not leave."""
    _volatile: set[Path] = field(default_factory=set[Path])
    """What differs between two dialogues of its own: times, ids, random values."""
    _confirmed: set[Path] = field(default_factory=set[Path])
    """What is the same in all of them, and differs where others speak."""
    _failures: dict[Any, str] = field(default_factory=dict[Any, str])
    """The dialogues that have failed, and why."""
    _tried: set[Any] = field(default_factory=set[Any])
    _shrinks: int = 0

    def __str__(self) -> str:
        """Write what was tried, as a line."""
        tried = f"{self.messages} messages reached it, {self.compared} of {self.heard} that it sent were compared"
        return f"{self.endpoint.path}: {tried}"

    def run(self) -> None:
        """Try dialogues.

        Raises:
            InterferenceError: In one of them a client has heard what it should not have.
        """
        __tracebackhide__ = True
        if isinstance(self.endpoint.shared, str):
            return
        anyio.run(anyio.sleep, 0)  # what it imports late is imported once, not in each fork
        gc.collect()
        gc.freeze()
        converse = given(dialogues(self))(self._check)
        chosen = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        try:
            chosen(converse)()
        except InterferenceError as error:
            raise InterferenceError(*error.args) from None  # without the notes of Hypothesis
        finally:
            gc.unfreeze()

    @property
    def skipped(self) -> str:
        """Why nothing is proved about the listener; "" where something is."""
        if isinstance(self.endpoint.shared, str):
            return self.endpoint.shared
        if self.messages and not self.heard and not self.endpoint.answers:
            return "it sends nothing"
        if not self.messages and self.ended.startswith(REFUSED):
            return f"its client {self.ended}. Fix: give it other headers, in the fixture `identify` of conftest.py"
        if self.heard and not self.compared:
            return "all that it sends differs each time, as times, ids and random values do"
        return ""

    def _check(self, steps: tuple[Step, ...]) -> None:
        if steps not in self._tried and self._shrinks < MAX_SHRINKS:
            self._tried.add(steps)  # Hypothesis tries some again
            self._shrinks += bool(self._failures)
            if failure := self._try(steps):
                self._failures[steps] = failure
        if steps in self._failures:
            raise InterferenceError(self._failures[steps])

    def _try(self, steps: Sequence[Step]) -> str:
        """Return how a dialogue fails; "" where it does not."""
        results = self._start(steps, only=ALPHA), self._start(steps)
        alone, among = (result() for result in results)
        for path, problem in self._problems(steps, alone, among).items():
            if path not in self._volatile and self._happens_again(steps, path, alone, among):
                return self._report(problem, among)
        self._count(steps, alone)
        return ""

    def _start(self, steps: Sequence[Step], **options: Any) -> Callable[[], Run]:
        return start(self.app, self.identify, steps, **options)

    def _happens_again(self, steps: Sequence[Step], path: Path, alone: Run, among: Run) -> bool:
        """Repeat a dialogue. In those of its own, as much time passes as the others have taken, and more."""
        again, number = 0, 0
        while path not in self._confirmed and number < (REPEATS if again in {0, number} else 4 * REPEATS):
            pauses = [seconds * number / 2 for seconds in among.seconds]
            results = self._start(steps, only=ALPHA, pauses=pauses, pace=number % 2), self._start(steps)
            alone_again, among_again = (result() for result in results)
            expected, heard = self._outcome(steps, alone, ALPHA), self._outcome(steps, alone_again, ALPHA)
            self._volatile |= {each for each, _, _ in _differences(expected, heard)}
            again += path in self._problems(steps, alone, among_again)
            number += 1
            if again < number / 3:
                self._volatile.add(path)
            if path in self._volatile:
                return False
        self._confirmed.add(path)
        return True

    def _problems(self, steps: Sequence[Step], alone: Run, among: Run) -> dict[Path, str]:
        """Return what a client has heard that it should not have, by what it is about."""
        found: dict[Path, str] = {}
        hidden = alone.heard[ALPHA].sees_others | among.heard[ALPHA].sees_others
        outcomes = (self._outcome(steps, run, ALPHA, hidden) for run in (alone, among))
        for path, one, other in _differences(*outcomes):
            found.setdefault(path, f"{ALPHA} receives {_name(path)} {other!r}. Alone, it receives {one!r}.")
        told = {who: "".join(map(str, (step for step in steps if step.who == who))) for who in among.heard}
        for who, heard in among.heard.items():
            for other in told.keys() - {who}:
                if other not in told[who] and other in str(self._outcome(steps, among, who)):
                    found["words", who, other] = f"{who} receives {other!r}, which it has not said."
            for number in heard.published:
                channel, _, by, _ = among.published[number]
                joined = among.heard[by].joined if by else {}
                if joined and channel not in joined and is_room(channel):
                    problem = f"{who} receives what {by} publishes on {channel!r}, and has not joined."
                    found["channel", who, by] = problem
            for channel, other in ((channel, other) for channel in heard.member for other in among.heard):
                if other > who and channel in among.heard[other].member:
                    one, another = (self._received(among, each, channel, who, other) for each in (who, other))
                    if one != another:
                        found["order", who, other] = (
                            f"{who} and {other} have joined {channel!r}, and do not receive the same: {one}, {another}."
                        )
            for name in heard.shared:
                if name not in self.endpoint.shared:
                    found["field", name] = f"Connection.{name} is one object for two connections."
        return found

    def _received(self, run: Run, who: str, channel: str, *members: str) -> list[tuple[str, Any]]:
        """Return what a member received while all these were members, of each sender in its order."""
        since = max(run.heard[each].member[channel] for each in members)
        ids = {run.heard[each].connection for each in members}
        numbers = [number for number in run.heard[who].published if number >= since]
        messages = [run.published[number] for number in numbers]
        chosen = [(each.by, each.message) for each in messages if each.channel == channel and each.exclude not in ids]
        return sorted(chosen, key=itemgetter(0))

    def _outcome(self, steps: Sequence[Step], run: Run, who: str, hidden: Collection[Any] = ()) -> Outcome:
        """Return what a client heard, but for what others have published, and what is shared on purpose."""
        heard = run.heard[who]
        said = [decode(step.what) for step in steps if step.who == who and step.does == "says"]
        requests = {request.pop("ref", ""): request for request in said if is_object(request)}
        own = [] if any(step.user for step in steps) else [run.published[number] for number in heard.published]
        answers = {ref: messages for ref, messages in heard.answers.items() if ref not in {*hidden, *heard.sees_others}}
        found: Outcome = {}
        for ref, messages in (*answers.items(), ("", [each.message for each in own if each.by == who])):
            request = requests.get(ref)
            for message in messages:
                if not any(each.conceals(request) or each.conceals(message) for each in self.endpoints):
                    found.setdefault((ref, _tag(request), _tag(message)), []).append(dict(_leaves((), message)))
        found[END] = [dict(_leaves((), how)) for how in heard.ended]
        return found

    def _count(self, steps: Sequence[Step], alone: Run) -> None:
        heard = alone.heard[ALPHA]
        self.ended = ", ".join(filter(None, [*heard.ended, alone.error])) or self.ended
        invalid = 0
        for root, messages in self._outcome(steps, alone, ALPHA).items():
            for message in messages:
                if message.get(("code",)) == "invalid_message":
                    invalid += 1
                elif root != END:
                    fixed = [path for path in message if path != ("type",) and (*root[1:], *path) not in self._volatile]
                    self.heard += 1
                    self.compared += bool(fixed) or len(message) < 2
        said = sum(step.who == ALPHA and step.does == "says" for step in steps)
        self.messages += said - invalid if heard.connection else 0

    def _report(self, problem: str, run: Run) -> str:
        dialogue = "\n".join(f"    {line}" for line in run.lines)
        return (
            f"{self.endpoint.path} lets a connection see the state of another: {self.endpoint.place}\n\n"
            f"{dialogue}\n\n{problem}\n"
            "Fix: keep what belongs to a connection in Connection (state.py). Where it is shared on purpose, say so: "
            'opt={"shared": {Message: "the reason"}}.'
        )


def _differences(one: Outcome, other: Outcome) -> Iterator[tuple[Path, Any, Any]]:
    """Yield what differs in two outcomes: where, and both values."""
    for root in one | other:
        left, right = one.get(root, []), other.get(root, [])
        for message, counterpart in zip(left, right, strict=False):
            for path in message | counterpart:
                if message.get(path) != counterpart.get(path):
                    yield (*root[1:], *path), message.get(path), counterpart.get(path)
        if len(left) != len(right):
            yield (*root[1:], "#"), len(left), len(right)


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
