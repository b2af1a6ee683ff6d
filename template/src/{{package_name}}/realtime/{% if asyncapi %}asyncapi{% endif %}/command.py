"""The command that writes the document, as /asyncapi has it, to the standard output: `python -m <package>.asyncapi`.

With `--json-schema` it writes the JSON schema of the messages alone, from which other tools make types.
"""

import argparse
import json
import sys
from typing import Any
from urllib.parse import unquote

from ..errors import ConfigurationError
from ..project import load_app
from .plugin import Documentation

SCHEMAS = "#/components/schemas/"


def main(arguments: list[str] | None = None) -> int:
    """Write the document.

    Returns:
        The exit status: 0, 1 for a mistake or a wrong setting, 2 for a wrong option.
    """
    parser = argparse.ArgumentParser(description="Write the AsyncAPI document of the messages.")
    parser.add_argument("--json-schema", action="store_true", help="write the JSON schema of the messages instead")
    options = parser.parse_args(arguments)
    try:
        app = load_app()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    document = app.plugins.get(Documentation).get_asyncapi_schema(app)
    written = json_schema(document) if options.json_schema else document
    sys.stdout.write(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return 0


def json_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Take the schemas out of the document, with the docstrings of the messages: one for each message, and one for
    each direction of each path. The root is any of them, so that whatever follows the references finds all.
    """
    definitions = {name: without_title(schema) for name, schema in document["components"]["schemas"].items()}
    for name, operation in document["operations"].items():
        messages = [resolve(document, reference["$ref"]) for reference in operation["messages"]]
        union = [message["payload"] for message in messages]
        path = resolve(document, operation["channel"]["$ref"])["address"]
        definitions[name] = {"description": f"{operation['title']} at {path}.", "anyOf": union}
        for message in messages:
            described = "\n\n".join(filter(None, (message.get("summary"), message.get("description"))))
            if described and "$ref" in message["payload"]:
                definitions[message["payload"]["$ref"].rpartition("/")[2]]["description"] = described
    root = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "AnyMessage",
        "anyOf": [{"$ref": f"{SCHEMAS}{name}"} for name in document["operations"]],
        "definitions": definitions,
    }
    moved: dict[str, Any] = json.loads(json.dumps(root).replace(f'"{SCHEMAS}', '"#/definitions/'))
    return moved


def without_title(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out the title, which several types may share; the name of a schema is its own."""
    return {key: value for key, value in schema.items() if key != "title"}


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Follow a JSON pointer (RFC 6901)."""
    found: Any = document
    for part in unquote(reference).removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


if __name__ == "__main__":
    sys.exit(main())
