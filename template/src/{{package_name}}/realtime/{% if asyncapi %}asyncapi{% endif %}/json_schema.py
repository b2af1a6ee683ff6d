"""The JSON schema of the messages, from which other tools generate types."""

import json
from typing import Any
from urllib.parse import unquote

SCHEMAS = "#/components/schemas/"
UNNUMBERED = {"ErrorMessage", "Pong", "Gap"}
"""Messages that are not published to a channel."""
SEQUENCE = "Where the client has joined with `after`: the number of the message in its channel."


def json_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Take the schemas of the messages out of an AsyncAPI document.

    Args:
        document: The document, as decoded from JSON.

    Returns:
        A JSON schema (draft 7) with a definition for each message and for each direction of each path. Docstrings of
        messages are descriptions. The root accepts any message, so that a tool that follows references finds them all.
    """
    definitions = {name: _without_title(schema) for name, schema in document["components"]["schemas"].items()}
    for name, operation in document["operations"].items():
        messages = [resolve(document, reference["$ref"]) for reference in operation["messages"]]
        union = [message["payload"] for message in messages]
        channel = resolve(document, operation["channel"]["$ref"])
        definitions[name] = {"description": f"{operation['title']} at {channel['address']}.", "anyOf": union}
        query = channel["bindings"]["ws"].get("query", {"properties": {}})
        resumes = operation["action"] == "send" and "after" in query["properties"]
        for message in messages:
            schema = definitions.get(message["payload"].get("$ref", "").rpartition("/")[2])
            if resumes and schema and message["name"] not in UNNUMBERED:
                schema["properties"]["sequence"] = {"type": "integer", "description": SEQUENCE}
            described = "\n\n".join(filter(None, (message.get("summary"), message.get("description"))))
            if described and schema:
                schema["description"] = described
    root = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "AnyMessage",
        "anyOf": [{"$ref": f"{SCHEMAS}{name}"} for name in document["operations"]],
        "definitions": definitions,
    }
    moved: dict[str, Any] = json.loads(json.dumps(root).replace(f'"{SCHEMAS}', '"#/definitions/'))
    return moved


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Return what a reference of a document points to.

    Args:
        document: The document, as decoded from JSON.
        reference: A JSON pointer (RFC 6901) as a fragment, such as `#/components/schemas/Say`.

    Raises:
        KeyError: The document has no such part.
    """
    found: Any = document
    for part in unquote(reference).removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out the title, which several types may share; the name of a definition is unique."""
    return {key: value for key, value in schema.items() if key != "title"}
