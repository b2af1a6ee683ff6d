"""Register a listener in app.py: one line in `route_handlers=[...]`, and one among the imports."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..settings import PACKAGE

MAX_COLUMNS: Final = 120

UNFIT: Final = (SyntaxError, StopIteration)
"""What comes of a file whose lines cannot be added, or would not be the only change."""


def register(app: Path, module: str, symbol: str) -> bool:
    """Add a listener to app.py, where a formatter leaves both lines as they are.

    Args:
        app: The file app.py.
        module: The name of the module in `listeners/`.
        symbol: The name of the listener in that module.

    Returns:
        Whether it was added. It is not where `Litestar(...)` is called without a list `route_handlers=[...]`, or more
        than once with one. What is written differs from before by these two lines and by nothing else.
    """
    source = app.read_bytes()
    try:
        tree = ast.parse(source)
        imports = _package_imports(tree)
        lists = _handler_lists(tree)
        if not imports or len(lists) != 1:
            return False
        name = f"listeners.{module}" if imports[0].level else f"{PACKAGE}.listeners.{module}"
        line = ast.ImportFrom(name, [ast.alias(symbol)], imports[0].level)
        lines = source.splitlines(keepends=True)
        # The list stands below the imports. Changed first, it leaves the lines above where they are.
        if not _add_element(lines, lists[0], symbol):
            return False
        lines.insert(_line_of_import(imports, name), f"{ast.unparse(line)}\n".encode())
        result = b"".join(lines)
        if b"\r\n" in source:
            result = re.sub(rb"\r?\n", b"\r\n", result)

        lists[0].elts.append(ast.Name(symbol, ast.Load()))
        changed = ast.parse(result)
        changed.body.remove(next(each for each in changed.body if ast.dump(each) == ast.dump(line)))
        if ast.dump(changed) != ast.dump(tree):
            return False
    except UNFIT:
        return False
    app.write_bytes(result)
    return True


def _package_imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """Return the imports from the package itself: the relative ones, or else the absolute ones."""
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    relative = [node for node in imports if node.level == 1]
    return relative or [node for node in imports if f"{node.module}.".startswith(f"{PACKAGE}.") and not node.level]


def _handler_lists(tree: ast.Module) -> list[ast.List]:
    """Return each list that is given as `route_handlers` to a call of `Litestar`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        keyword.value
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] == "Litestar"
        for keyword in call.keywords
        if keyword.arg == "route_handlers" and isinstance(keyword.value, ast.List)
    ]


def _add_element(lines: list[bytes], handlers: ast.List, symbol: str) -> bool:
    """Add a name to the end of a list: on a line of its own where the closing bracket has one. False: too long."""
    end_line, end_column = _end(handlers)
    closing = lines[end_line - 1][: end_column - 1]
    last = handlers.elts[-1] if handlers.elts else None
    if handlers.lineno == end_line or closing.strip():
        line, column = _end(last) if last else (handlers.lineno, handlers.col_offset + 1)
        _insert(lines, line, column, f", {symbol}" if last else symbol)
        return len(lines[line - 1].decode().rstrip()) <= MAX_COLUMNS
    indent = closing + b"    "
    if last:
        indent = lines[last.lineno - 1].removesuffix(lines[last.lineno - 1].lstrip())
        line, column = _end(last)
        between = [lines[line - 1][column:], *lines[line : end_line - 1]]
        if not any(b"," in text.partition(b"#")[0] for text in between):
            _insert(lines, line, column, ",")
    lines.insert(end_line - 1, indent + f"{symbol},\n".encode())
    return True


def _end(node: ast.expr) -> tuple[int, int]:
    """Return the line and the column, in bytes, behind a node that was parsed."""
    return node.end_lineno or 0, node.end_col_offset or 0


def _insert(lines: list[bytes], line: int, column: int, text: str) -> None:
    lines[line - 1] = lines[line - 1][:column] + text.encode() + lines[line - 1][column:]


def _line_of_import(imports: Sequence[ast.ImportFrom], name: str) -> int:
    """Return the index of the line where an import belongs, in the order of ruff's isort rules."""
    before = [node.end_lineno or 0 for node in imports if _natural(node.module or "") < _natural(name)]
    return before[-1] if before else imports[0].lineno - 1


def _natural(name: str) -> list[Any]:
    """Return a key to sort by, with numbers as numbers: chat2 before chat10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]
