"""Whose a file of a generated project is. It follows from where the file stands."""

YOURS, MERGED, TEMPLATE = "yours", "merged", "the template's"


def whose(name: str, package: str = "my_service") -> str:
    """Say whose a file is.

    Args:
        name: Its path in the project, with slashes.
        package: The name of the package.

    Returns:
        `YOURS` is born once and never touched again, `TEMPLATE` is replaced by each update, `MERGED` is merged.
    """
    if name.startswith(f"src/{package}/realtime/"):
        return TEMPLATE
    if name in {"README.md", "tests/conftest.py"} or name.startswith(("src/", "tests/listeners/")):
        return YOURS
    return TEMPLATE if name.startswith("tests/") else MERGED
