"""Write a typed client of the service to standard output: a function for each listener, with its messages.

The client imports client.js: put it, client.js and client.d.ts into one folder of your application. The types come from
msgspec's JSON schemas of the messages. The code is formatted as by Prettier.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.routes import WebSocketRoute
from litestar.typing import FieldDefinition

from ..fanout.messages import Gap
from ..handlers.listener import ListenerRouteHandler, description_of, given_type, json_schemas, listener_routes
from ..handlers.messages import End, ErrorMessage, Pong
from ..internals import fields_of, query_of
from ..parts import load_app
from ..settings import PACKAGE

WIDTH: Final = 80
"""The line length of Prettier."""

HEADER: Final = """\
// Written by `python -m {package}.realtime client --typescript`: do not edit it, write it anew.
import {{ ReconnectingWebSocket }} from "./client.js";
import type {{ Options, Sequenced, Untagged }} from "./client.js";
"""

PRIMITIVES: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
WORDS: Final = """
Array Options Promise ReconnectingWebSocket Record Sequenced Untagged arguments await break case catch class const
continue debugger default delete do else encodeURIComponent enum eval export extends false finally for function if
implements import in instanceof interface let new null package private protected public return static super switch this
throw true try typeof undefined var void while with yield
"""
"""Names that a function or a type in the file cannot have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("--typescript", action="store_true", required=True, help="in TypeScript, the only language yet")


def run(_: argparse.Namespace) -> None:
    """Write the client.

    Raises:
        ConfigurationError: The application does not start.
    """
    sys.stdout.write(write_client(load_app()))


def write_client(app: Litestar) -> str:
    """Write the client.

    Args:
        app: The application, with its listeners registered.

    Returns:
        A module of TypeScript. The same application gives the same text.
    """
    routes = sorted(listener_routes(app), key=lambda found: found[0].path_format)
    messages = [each for _, handler in routes for each in (*handler.taken_types(), *handler.sent_types())]
    queries = [given_type(field) for route, _ in routes for _, field, _ in query_of(route)]
    kinds = {repr(kind): kind for kind in [*(message.raw for message in _json_of(messages)), *queries]}
    schemas, components = json_schemas(kinds.values())
    taken_names: set[str] = {*WORDS.split()}
    types = {name: _unique(_pascal(_short(name, components)), taken_names) for name in sorted(components)}
    writer = _Writer(types, dict(zip(kinds, schemas, strict=True)))
    parts = [HEADER.format(package=PACKAGE)]
    parts += [writer.component(name, components[name]) for name in sorted(components, key=lambda name: types[name])]
    parts += [writer.listener(route, handler, taken_names) for route, handler in routes]
    return "\n".join(parts)


def _json_of(kinds: Iterable[FieldDefinition]) -> list[FieldDefinition]:
    """Return the messages that are JSON, without those that client.js handles itself."""
    return [kind for kind in kinds if kind.annotation not in {str, bytes, End, Pong}]


def _short(name: str, components: dict[str, Any]) -> str:
    """Return the name of a type, with its module if two types have the same name."""
    *modules, last = name.split(".")
    return f"{modules[-1]}_{last}" if modules and "[" not in name and name in components else last


def _pascal(name: str) -> str:
    words = re.findall(r"[^\W_]+", name)
    pascal = "".join(word[0].upper() + word[1:] for word in words)
    return pascal if pascal.isidentifier() else f"_{pascal}"


def _unique(name: str, taken: set[str], *suffixes: str) -> str:
    """Return a name that is not taken, nor are its types, with a number appended if necessary, and take it."""
    numbered = (name, *(f"{name}{n}" for n in range(2, 1000)))
    found = next(each for each in numbered if taken.isdisjoint({each, *(_pascal(each) + end for end in suffixes)}))
    taken.add(found)
    return found


class _Writer:
    """Writes types and functions.

    Args:
        types: The names of the components, by their names in the schemas.
        schemas: The JSON schemas of messages and parameters, by the `repr` of their types.
    """

    def __init__(self, types: dict[str, str], schemas: dict[str, Any]) -> None:
        self._types = types
        self._schemas = schemas

    def component(self, name: str, schema: dict[str, Any]) -> str:
        """Write the type of a message, or of a part of one."""
        comment = _comment(schema.get("description"))
        if "properties" not in schema:
            return f"{comment}{_alias(self._types[name], self._members(schema))}"
        required = schema.get("required", ())
        fields = [
            self._field(field, each, "" if field in required else "?") for field, each in schema["properties"].items()
        ]
        return f"{comment}{_interface(self._types[name], fields)}"

    def listener(self, route: WebSocketRoute, handler: ListenerRouteHandler, taken_names: set[str]) -> str:
        """Write the types of a listener, and the function that connects to it."""
        base = _pascal(handler.source.__name__)
        function_name = _unique(base[0].lower() + base[1:], taken_names, "Incoming", "Outgoing", "Parameters", "Socket")
        base = _pascal(function_name)  # with its number, if two listeners have the same name
        taken, answers = self._union(handler.taken_types()), self._union(handler.answer_types())
        incoming, outgoing = f"{base}Incoming", f"{base}Outgoing"
        call = f"(message: {outgoing}) => {' | '.join(answers)}" if answers and taken else "never"
        arguments = [incoming, "never" if handler.streams else call, outgoing, call if handler.streams else "never"]
        tag = _tag(handler.taken_types())
        query = query_of(route)
        resumes = any(name == "after" for name, _, _ in query)
        lines = [
            *self._parameters(f"{base}Parameters", route, handler, query),
            _alias(outgoing, [f'Untagged<{taken[0]}, "{tag[0]}">'] if tag else taken or ["never"]),
            _alias(incoming, self._incoming(handler.sent_types(), resumes=resumes)),
            _listing(f"export type {base}Socket = ReconnectingWebSocket<", arguments, "", ">;\n"),
        ]
        settings = ["after: parameters.after,"] if resumes else []
        others = [name for name, _, _ in query if name != "after"]
        if others:
            settings.append(f"query: {{ {', '.join(f'{_key(name)}: {_member(name)}' for name in others)} }},")
        if tag:
            settings.append(f"defaults: {{ {_key(tag[0])}: {json.dumps(tag[1])} }},")
        if not handler.codec.answers_pings:
            settings.append("pingInterval: 0,")
        path = re.sub(r"\{(\w+)\}", lambda found: f"${{encodeURIComponent({_member(found[1])})}}", route.path_format)
        parameters = [f"options: Options<{incoming}> = {{}}"]
        if len(lines) > 3:
            needed = route.path_parameters or any(required for *_, required in query)
            parameters.insert(0, f"parameters: {base}Parameters{'' if needed else ' = {}'}")
        lines.append(
            f"{_comment(handler.source.__doc__)}"
            f"{_listing(f'export function {function_name}(', parameters, ',', f'): {base}Socket {{')}\n"
            f"  const path = {f'`{path}`' if '$' in path else json.dumps(path)};\n"
            f"  const socket: {base}Socket = new ReconnectingWebSocket(path, {{\n"
            f"{''.join(f'    {setting}{chr(10)}' for setting in settings)}"
            "    ...options,\n  });\n  return socket.open();\n}\n"
        )
        return "\n".join(lines)

    def _parameters(
        self, name: str, route: WebSocketRoute, handler: ListenerRouteHandler, query: list[tuple[str, Any, bool]]
    ) -> list[str]:
        """Write the type of the path and query parameters, if there are any."""
        fields = fields_of(handler)
        lines: list[str] = []
        for each, parameter in route.path_parameters.items():
            kind = "number" if parameter.type in {int, float} else "string"
            lines.append(f"{_comment(description_of(fields.get(each)), '  ')}  {_key(each)}: {kind};\n")
        for each, field, required in query:
            described = {**self._schemas[repr(given_type(field))], "description": description_of(field)}
            lines.append(self._field(each, described, "" if required else "?", *(() if required else ("undefined",))))
        return [_interface(name, lines)] if lines else []

    def _incoming(self, sent: list[FieldDefinition], *, resumes: bool) -> list[str]:
        """Return the types of the received messages. Those of a channel have a sequence."""
        numbered = {kind.annotation for kind in sent} - {ErrorMessage, Gap} if resumes else set[Any]()
        plain = self._union(kind for kind in sent if kind.annotation not in numbered)
        rest = self._union(kind for kind in sent if kind.annotation in numbered)
        return sorted([*plain, *(f"Sequenced<{each}>" for each in rest)])

    def _union(self, kinds: Iterable[FieldDefinition]) -> list[str]:
        """Return the types of some messages, in order."""
        schemas = [self._schemas[repr(kind.raw)] for kind in _json_of(kinds)]
        return sorted({member for schema in schemas for member in self._members(schema)})

    def _field(self, name: str, schema: dict[str, Any], mark: str, *more: str) -> str:
        start = f"  {_key(name)}{mark}:"
        return f"{_comment(schema.get('description'), '  ')}{_union(start, [*self._members(schema), *more], '    ')}\n"

    def _type(self, schema: Any) -> str:
        """Return a type in one line."""
        return " | ".join(self._members(schema))

    def _members(self, schema: Any) -> list[str]:
        """Return the members of the union that a JSON schema stands for."""
        match schema:
            case {"$ref": name}:
                return [self._types[name]]
            case {"const": value}:
                return [json.dumps(value, ensure_ascii=False)]
            case {"enum": values}:
                return [json.dumps(value, ensure_ascii=False) for value in values]
            case {"anyOf": schemas}:
                return list(dict.fromkeys(member for each in schemas for member in self._members(each)))
            case {"type": "array", "prefixItems": schemas}:
                return [f"[{', '.join(map(self._type, schemas))}]"]
            case {"type": "array"}:
                members = self._members(schema.get("items", {}))
                item = members[0] if len(members) == 1 else f"({' | '.join(members)})"
                return [f"{item}[]"]
            case {"type": "object", "properties": properties}:
                required = schema.get("required", ())
                marks = ((name, "" if name in required else "?", each) for name, each in properties.items())
                return [f"{{ {'; '.join(f'{_key(name)}{mark}: {self._type(each)}' for name, mark, each in marks)} }}"]
            case {"type": "object"}:
                return [f"Record<string, {self._type(schema.get('additionalProperties') or {})}>"]
            case {"type": name}:
                return [PRIMITIVES[name]]
            case _:
                return ["unknown"]


def _tag(taken: list[FieldDefinition]) -> tuple[str, Any] | None:
    """Return the field and the value of the tag, if a listener takes only one message."""
    own = [kind for kind in taken if isinstance(msgspec.inspect.type_info(kind.raw), msgspec.inspect.StructType)]
    info: Any = msgspec.inspect.type_info(own[0].raw) if len(own) == len(taken) == 1 else None
    return (info.tag_field, info.tag) if info and info.tag_field and not info.array_like else None


def _key(name: str) -> str:
    return name if name.replace("$", "_").isidentifier() else json.dumps(name, ensure_ascii=False)


def _member(name: str) -> str:
    key = _key(name)
    return f"parameters.{key}" if key == name else f"parameters[{key}]"


def _comment(text: str | None, indent: str = "") -> str:
    lines = inspect.cleandoc(text or "").replace("*/", "*\\/").splitlines()
    if len(lines) > 1:
        return "".join([f"{indent}/**\n", *(f"{indent} * {line}".rstrip() + "\n" for line in lines), f"{indent} */\n"])
    return f"{indent}/** {lines[0]} */\n" if lines else ""


def _union(start: str, members: list[str], indent: str) -> str:
    """Write a union after a start, in one line if it fits."""
    line = f"{start} {' | '.join(members)};"
    if len(line) <= WIDTH or len(members) == 1:
        return line
    return "\n".join([start, *(f"{indent}| {member}" for member in members)]) + ";"


def _alias(name: str, members: list[str]) -> str:
    return f"{_union(f'export type {name} =', members, '  ')}\n"


def _interface(name: str, fields: list[str]) -> str:
    return f"export interface {name} {{\n{''.join(fields)}}}\n"


def _listing(start: str, items: list[str], comma: str, end: str) -> str:
    """Write a list between a start and an end, in one line if it fits; otherwise with a comma after the last item."""
    line = f"{start}{', '.join(items)}{end}"
    return line if len(line) <= WIDTH else f"{start}\n  {f',{chr(10)}  '.join(items)}{comma}\n{end}"
