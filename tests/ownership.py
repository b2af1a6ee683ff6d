"""Whose a file is, by the table in the README of a generated project."""

import re
from pathlib import Path

YOURS, SHARED, TEMPLATE = "yours", "shared", "the template's"


class Ownership:
    """The table, read."""

    def __init__(self, project: Path, package: str = "my_service") -> None:
        text = (project / "README.md").read_text("utf-8").partition("## Which files are yours")[2]
        self.rows: dict[str, list[str]] = {}
        for files, kind in re.findall(r"^\| (`.+?) \| ([\w' ]+) \|", text.partition("\n## ")[0], re.MULTILINE):
            self.rows[kind] = re.findall(r"`([^`]+)`", files)
        self._package = f"src/{package}/"

    def matches(self, name: str) -> list[tuple[str, str]]:
        """Return each row into which a file fits: whose it is, and the path that fits."""
        places = (name, name.removeprefix(self._package))
        return [
            (kind, path)
            for kind, paths in self.rows.items()
            for path in paths
            if any(place.startswith(path) if path.endswith("/") else place == path for place in places)
        ]

    def whose(self, name: str) -> str:
        """The one row in which a file is: of two, the longer name counts."""
        matches = self.matches(name)
        assert matches, f"{name} is in no row"
        longest = max(len(path) for _, path in matches)
        (kind,) = (kind for kind, path in matches if len(path) == longest)
        return kind
