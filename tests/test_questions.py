"""The questions: a wrong answer is refused with what is wrong and a right value; every default is right."""

import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier import Settings

from .rendering import ROOT, answers_of, render

Rendered = Callable[..., Path]
QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text())

WRONG: list[tuple[str, Any, str]] = [
    ("project_name", " ", "as in: Chat Service"),
    ("project_name", "two\nlines", "single line"),
    ("project_slug", "Chat", "as in: chat-service"),
    ("project_slug", "chat_service", "as in: chat-service"),
    ("project_slug", "chat--service", "as in: chat-service"),
    ("project_slug", "-chat", "as in: chat-service"),
    ("project_slug", "x" * 41, "41 characters, and 40 fit"),
    ("project_slug", "litestar", "litestar-service"),
    ("project_slug", "pytest", "pytest-service"),
    ("package_name", "Chat", "as in: chat_service"),
    ("package_name", "1chat", "a letter first"),
    ("package_name", "_chat", "a letter first"),
    ("package_name", "chat-service", "as in: chat_service"),
    ("package_name", "class", "is a keyword of Python"),
    ("package_name", "email", "has a module email already"),
    ("package_name", "litestar", "has a module litestar already"),
    ("package_name", "tests", "has a module tests already"),
    ("package_name", "x" * 49, "49 characters"),
    ("description", "two\nlines", "on one line"),
    ("author_name", "two\nlines", "on one line"),
    ("author_email", "nobody", "as in ada@example.com"),
    ("author_email", "a b@example.com", "as in ada@example.com"),
    ("listeners", ["Chat"], "Chat is no name for a listener"),
    ("listeners", "class", "class is taken"),
    ("listeners", ["echo"], "Choose another, as in: echo_feed"),
    ("listeners", "chat, chat", "more than once"),
    ("license", "WTFPL", "Invalid choice"),
    ("python_version", "3.10", "Invalid choice"),
    ("fanout", "kafka", "Invalid choice"),
    ("auth", "basic", "Invalid choice"),
]


@pytest.mark.parametrize(("question", "answer", "complaint"), WRONG)
def test_a_wrong_answer_is_refused(template: Path, tmp_path: Path, question: str, answer: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)'{question}'") as error:
        render(template, tmp_path / "project", **{question: answer})
    assert complaint in str(error.value)
    assert not (tmp_path / "project").exists()


def test_every_question_has_a_default_and_a_help() -> None:
    for name, question in QUESTIONS.items():
        if not name.startswith("_"):
            assert "default" in question, name
            assert "help" in question or question.get("when") is False, name


def test_no_task_and_no_extension_ever_asks_for_trust() -> None:
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & QUESTIONS.keys()


def test_the_taken_names_are_those_of_python_and_of_what_is_installed() -> None:
    taken = set(QUESTIONS["taken_names"]["default"].split())
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    assert public <= taken
    ours = {"litestar", "uvicorn", "msgspec", "pydantic", "structlog", "prometheus_client", "litestar_asyncapi", "ruff"}
    assert ours <= set(packages_distributions()) & taken


@pytest.mark.parametrize(
    ("folder", "slug", "package"),
    [
        ("chat", "chat", "chat"),
        ("My Chat_Service", "my-chat-service", "my_chat_service"),
        ("litestar", "litestar-service", "litestar_service"),
        ("tests", "tests-service", "tests_service"),
        ("class", "class", "class_service"),
        ("2048", "2048", "service_2048"),
        ("чат", "my-service", "my_service"),
        ("a" * 60, "a" * 40, "a" * 40),
        ("-weird-", "weird", "weird"),
    ],
)
def test_any_folder_gives_right_defaults(template: Path, tmp_path: Path, folder: str, slug: str, package: str) -> None:
    copier.run_copy(str(template), tmp_path / folder, defaults=True, unsafe=False, quiet=True)
    answers = answers_of(tmp_path / folder)
    assert (answers["project_slug"], answers["package_name"]) == (slug, package)


def test_the_author_is_known_from_the_settings_of_copier(template: Path, tmp_path: Path) -> None:
    known = Settings(defaults={"user_name": "Ada Lovelace", "user_email": "ada@example.com"})
    target = tmp_path / "project"
    copier.run_copy(str(template), target, defaults=True, unsafe=False, quiet=True, settings=known)
    answers = answers_of(target)
    assert (answers["author_name"], answers["author_email"]) == ("Ada Lovelace", "ada@example.com")


@pytest.mark.parametrize("listeners", [["chat", "prices"], "chat, prices", "chat prices"])
def test_listeners_are_a_list_or_names_with_commas(rendered: Rendered, listeners: Any) -> None:
    folder = rendered(listeners=listeners) / "src" / "my_service" / "listeners"
    assert {file.stem for file in folder.iterdir()} == {"__init__", "chat", "echo", "prices", "rooms"}
