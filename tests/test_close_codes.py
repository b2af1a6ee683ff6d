"""The close codes stand in one table, `sessions/cause.py`; the reference and `client.js` have the same."""

import json
import re
from pathlib import Path

from .rendering import check

REALTIME = Path("src/my_service/realtime")
SCRIPT = """
import json
from my_service.realtime.sessions.cause import CLOSE_CODES
print(json.dumps({code: [each.closes, each.meaning, each.reconnect] for code, each in CLOSE_CODES.items()}))
"""


def of_the_service(project: Path) -> dict[int, tuple[str, str, bool]]:
    return {int(code): tuple(line) for code, line in json.loads(check(project, "python", "-c", SCRIPT)).items()}


def section(project: Path, title: str) -> str:
    """Return a section of the reference."""
    return (project / REALTIME / "README.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_reference_has_the_table(default_project: Path) -> None:
    text = section(default_project, "Close codes")
    lines = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \| (yes|no) \|$", text, re.MULTILINE)
    table = {int(code): (who, why, reconnect == "yes") for code, who, why, reconnect in lines}
    assert table == of_the_service(default_project)


def test_the_client_has_the_table(default_project: Path) -> None:
    source = (default_project / REALTIME / "client" / "client.js").read_text()
    lines = re.findall(r'\[(\d+), \{ meaning: "(.+)", reconnect: (true|false) \}\]', source)
    ours = {code: (why, reconnect) for code, (_, why, reconnect) in of_the_service(default_project).items()}
    assert {int(code): (why, reconnect == "true") for code, why, reconnect in lines} == ours


def test_every_code_that_the_service_uses_is_in_the_table(default_project: Path) -> None:
    sources = "\n".join(path.read_text() for path in (default_project / REALTIME).rglob("*.py"))
    used = set(re.findall(r"\bCloseCode\.([A-Z_]+)", sources))
    script = f"from websockets.frames import CloseCode; print(*(CloseCode[name].value for name in {sorted(used)}))"
    assert {int(code) for code in check(default_project, "python", "-c", script).split()} == {
        *of_the_service(default_project)
    }


def test_every_limit_is_in_the_reference(default_project: Path) -> None:
    text = section(default_project, "Limits")
    script = "from my_service.realtime.sessions.runtime import LIMITS; print(*LIMITS)"
    for name in check(default_project, "python", "-c", script).split():
        assert f"`{name.upper()}`" in text, name
