"""The close codes stand in one table, `connections/cause.py`; the README and the page's client say the same."""

import json
import re
from pathlib import Path

from .rendering import check

SCRIPT = """
import json
from my_service.realtime.sessions.cause import CLOSE_CODES
print(json.dumps({code: [each.closes, each.meaning, each.reconnect] for code, each in CLOSE_CODES.items()}))
"""


def of_the_service(project: Path) -> dict[int, tuple[str, str, bool]]:
    return {int(code): tuple(line) for code, line in json.loads(check(project, "python", "-c", SCRIPT)).items()}


def test_the_readme_has_the_table(default_project: Path) -> None:
    section = (default_project / "README.md").read_text().partition("## Close codes")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \| (yes|no) \|$", section, re.MULTILINE)
    assert {int(code): (who, why, back == "yes") for code, who, why, back in lines} == of_the_service(default_project)


def test_the_client_of_the_page_has_the_table(default_project: Path) -> None:
    source = (default_project / "src" / "my_service" / "page" / "client.js").read_text()
    lines = re.findall(r'\[(\d+), \{ meaning: "(.+)", reconnect: (true|false) \}\]', source)
    ours = {code: (why, back) for code, (_, why, back) in of_the_service(default_project).items()}
    assert {int(code): (why, back == "true") for code, why, back in lines} == ours


def test_every_code_that_the_service_names_is_in_the_table(default_project: Path) -> None:
    source = (default_project / "src" / "my_service" / "connections" / "cause.py").read_text()
    named = {int(code) for code in re.findall(r"^[A-Z_0-9]+: Final = (\d{4})$", source, re.MULTILINE)}
    assert named == of_the_service(default_project).keys()


def test_every_limit_is_in_the_readme(default_project: Path) -> None:
    section = (default_project / "README.md").read_text().partition("## Limits")[2].partition("\n## ")[0]
    script = "from my_service.realtime.sessions.metrics import LIMITS; print(*LIMITS)"
    for name in check(default_project, "python", "-c", script).split():
        assert f"`{name.upper()}`" in section, name
