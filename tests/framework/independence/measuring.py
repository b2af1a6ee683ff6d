"""Measure the proof: `python -m framework.independence.measuring correct 0` writes what it says about a listener.

With `planted`, about the mistake of a seed. `tests/proof.py` of the repository runs it, and makes a table of the lines.
"""

import json
import sys
from typing import Any
from unittest.mock import patch

from my_service import hooks
from my_service.realtime import plugin
from my_service.realtime.testing import LoggingForTests, independence

from .listeners import FIFTY, Connection
from .planted import plant
from .proving import prove


def path_of(handler: Any) -> str:
    return str(getattr(handler, "path", None) or next(iter(handler.paths)))


def look(handler: Any, hooks: Any = hooks) -> dict[str, Any]:
    """Say what the proof says about a listener."""
    try:
        (proof,) = prove(handler, connection=Connection, hooks=hooks, roles=["admin"])
    except independence.InterferenceError as error:
        named = str(error).startswith(str(path_of(handler)).partition("{")[0])
        return {"found": named, "report": str(error)}
    vacuous = not (proof.messages and proof.compared)
    return {"found": False, "report": "", "messages": proof.messages, "compared": proof.compared, "vacuous": vacuous}


def correct(number: int) -> dict[str, Any]:
    return {"listener": path_of(FIFTY[number]), "examples": independence.EXAMPLES} | look(FIFTY[number])


def planted(seed: int) -> dict[str, Any]:
    mistake = plant(seed)
    found = look(mistake.handler, mistake)
    names = {"shape": mistake.shape.__name__, "place": mistake.place.__name__}
    return {"listener": path_of(mistake.handler), "first": mistake.first} | names | found


if __name__ == "__main__":
    patch.object(plugin, "Logging", LoggingForTests).start()
    what, number = sys.argv[1], int(sys.argv[2])
    found = {"correct": correct, "planted": planted}[what](number)
    sys.stdout.write(json.dumps({"what": what, "number": number} | found))
