"""The questions: a wrong answer is refused with what is wrong and a right value; every default is right."""

import keyword
import re
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier import Settings
from packaging.requirements import Requirement

from .rendering import HOSTILE, ROOT, Renders, answers_of, render
from .wheels import check_wheel

QUESTIONS = yaml.safe_load((ROOT / "copier.yml").read_text())

WRONG: list[tuple[str, Any, str]] = [
    ("project_name", " ", "like Chat Service: the name must not be empty"),
    ("project_name", "two\nlines", "like Chat Service: one line"),
    ("project_name", "x" * 81, "at most 80 characters, not 81"),
    ("project_slug", "Chat", "like chat-service: lower-case"),
    ("project_slug", "chat_service", "like chat-service: lower-case"),
    ("project_slug", "chat--service", "like chat-service: lower-case"),
    ("project_slug", "-chat", "like chat-service: lower-case"),
    ("project_slug", "x" * 41, "at most 40 characters, not 41"),
    ("project_slug", "litestar", "a dependency has this name"),
    ("project_slug", "pyyaml", "a dependency has this name"),
    ("project_slug", "python-dotenv", "a dependency has this name"),
    ("project_slug", "pytest-xdist", "a dependency has this name"),
    ("project_slug", "pyjwt", "a dependency has this name"),
    ("project_slug", "python", "a dependency has this name"),
    ("package_name", "Chat", "like chat_service: a letter"),
    ("package_name", "1chat", "like chat_service: a letter"),
    ("package_name", "_chat", "like chat_service: a letter"),
    ("package_name", "chat-service", "like chat_service: a letter"),
    ("package_name", "class", "a keyword of Python"),
    ("package_name", "email", "Python or a dependency has this name"),
    ("package_name", "litestar", "Python or a dependency has this name"),
    ("package_name", "tests", "Python or a dependency has this name"),
    ("package_name", "x" * 49, "at most 48 characters, not 49"),
    ("description", "two\nlines", "one line, without control characters"),
    ("description", "x" * 501, "at most 500 characters, not 501"),
    ("author_name", "two\nlines", "like Ada Lovelace: one line"),
    ("author_name", "x" * 201, "at most 200 characters, not 201"),
    ("author_email", "nobody", "like ada@example.com"),
    ("author_email", "a b@example.com", "like ada@example.com"),
    ("license", "WTFPL", "Invalid choice"),
    ("python_version", "3.10", "Invalid choice"),
    ("fanout", "kafka", "Invalid choice"),
    ("auth", "basic", "Invalid choice"),
    ("telemetry", "prometheus", "Invalid choice"),
]
COLUMNS = 80
"""Of a terminal. Longer than that, help and messages are cut."""


@pytest.mark.parametrize(("question", "answer", "complaint"), WRONG)
def test_a_wrong_answer_is_refused(template: Path, tmp_path: Path, question: str, answer: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)'{question}'") as error:
        render(template, tmp_path / "project", **{question: answer})
    assert complaint in str(error.value)
    if complaint != "Invalid choice":  # whose words are Copier's
        message = str(error.value).split(f"'{question}': ")[-1]
        assert len(message) < COLUMNS
        assert message.startswith("Write it like "), "the example comes first"
    assert not (tmp_path / "project").exists()


def test_every_question_has_a_default_and_a_help() -> None:
    for name, question in QUESTIONS.items():
        if not name.startswith("_"):
            assert "default" in question, name
            assert "help" in question or question.get("when") is False, name
            suffix = "(y/N) " if question["type"] == "bool" else ""
            assert len(f"?? {question.get('help', '')} {suffix}") < COLUMNS, f"{name}: its help is cut"


def test_the_questions_are_those_of_the_contract() -> None:
    """Benchmarks, pages and tests outside of this repository name them."""
    asked = [name for name, each in QUESTIONS.items() if not name.startswith("_") and each.get("when") is not False]
    assert asked == [
        *("project_name", "project_slug", "package_name", "description", "author_name", "author_email", "license"),
        *("python_version", "fanout", "auth", "demo_page", "asyncapi", "telemetry", "docker", "ci", "vscode"),
        "dependency_bot",
    ]


def test_the_file_can_be_read() -> None:
    lines = (ROOT / "copier.yml").read_text().splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_no_task_and_no_extension_ever_asks_for_trust() -> None:
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & QUESTIONS.keys()


def normalized(name: str) -> str:
    return re.sub("[-_.]+", "_", name).lower()


def dependencies(*requirements: str) -> set[str]:
    """Return the names of distributions that these requirements bring, and of the modules in them."""
    modules: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for each in distributions:
            modules.setdefault(normalized(each), set()).add(module)
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [*requirements]
    while waiting:
        if (text := waiting.pop()) in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        found |= {normalized(requirement.name), *modules.get(normalized(requirement.name), ())}
        with suppress(PackageNotFoundError):
            for each in distribution(requirement.name).requires or []:
                marker = Requirement(each).marker
                if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                    waiting.append(each)
    return {name for name in found if re.fullmatch("[a-z][a-z0-9_]*", name)}


def taken_names() -> set[str]:
    return set(re.findall(r"\w+", (ROOT / "includes" / "names.jinja").read_text().partition("set keywords")[0]))


def test_the_taken_names_are_those_of_python_and_of_what_is_installed(renders: Renders) -> None:
    taken = taken_names()
    assert {name for name in sys.stdlib_module_names if not name.startswith("_")} <= taken
    for fanout in ("redis", "postgres"):
        project = renders.of(fanout=fanout, auth="jwt", telemetry="opentelemetry")
        told = tomllib.loads((project / "pyproject.toml").read_text())
        wanted = dependencies(*told["project"]["dependencies"], *told["dependency-groups"]["dev"])
        assert len(wanted) > 50
        assert wanted <= taken


def test_the_taken_names_are_those_of_the_project(renders: Renders) -> None:
    """A module beside `src` hides a package from `python -m`, and git would ignore a package that is called `dist`."""
    project = renders.of()
    ignored = re.findall(r"^([a-z]+)/$", (project / ".gitignore").read_text(), re.MULTILINE)
    modules = [file.stem for file in project.glob("*.py")]
    assert (ignored, modules) == (["dist"], ["update"])
    assert {*ignored, *modules} <= taken_names()


def test_the_keywords_are_those_of_python() -> None:
    words = set(re.findall(r"\w+", (ROOT / "includes" / "names.jinja").read_text().partition("set keywords")[2]))
    assert {word for word in (*keyword.kwlist, *keyword.softkwlist) if word.islower() and word != "_"} <= words


@pytest.mark.parametrize(
    ("folder", "slug", "package"),
    [
        ("chat", "chat", "chat"),
        ("My Chat_Service", "my-chat-service", "my_chat_service"),
        ("litestar", "litestar-service", "litestar_service"),
        ("tests", "tests-service", "tests_service"),
        ("class", "class", "class_service"),
        ("2048", "2048", "service_2048"),
        ("3d-chat", "3d-chat", "service_3d_chat"),
        ("24 7", "24-7", "service_24_7"),
        ("async", "async", "async_service"),
        ("PyYAML", "pyyaml-service", "pyyaml_service"),
        ("python-dotenv", "python-dotenv-service", "python_dotenv_service"),
        ("pytest-xdist", "pytest-xdist-service", "pytest_xdist_service"),
        ("opentelemetry-exporter-otlp-proto-common", "opentelemetry-exporter-otlp-prot-service", None),
        ("чат", "my-service", "my_service"),
        ("a" * 60, "a" * 40, "a" * 40),
        ("-weird-", "weird", "weird"),
    ],
)
def test_any_folder_gives_right_defaults(
    template: Path, tmp_path: Path, folder: str, slug: str, package: str | None
) -> None:
    """A service can be built and imported under each of them."""
    copier.run_copy(str(template), tmp_path / folder, defaults=True, unsafe=False, quiet=True)
    answers = answers_of(tmp_path / folder)
    assert (answers["project_slug"], answers["package_name"]) == (slug, package or slug.replace("-", "_"))
    check_wheel(tmp_path / folder, tmp_path)


@pytest.mark.parametrize(
    "answers",
    [
        {"project_name": "Acme Chat", "package_name": "chat"},
        {"project_slug": "a", "package_name": "a", "auth": "jwt"},
        {"project_slug": "7", "package_name": "x7", "fanout": "redis"},
        HOSTILE,
        HOSTILE | {"license": "proprietary", "fanout": "postgres", "telemetry": "opentelemetry"},
    ],
    ids=str,
)
def test_odd_names_can_be_installed(renders: Renders, tmp_path: Path, answers: dict[str, Any]) -> None:
    check_wheel(renders.of(**answers), tmp_path)


def test_the_folder_may_be_the_one_that_one_is_in(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chat").mkdir()
    monkeypatch.chdir(tmp_path / "chat")
    copier.run_copy(str(template), ".", defaults=True, unsafe=False, quiet=True)
    assert answers_of(tmp_path / "chat")["project_name"] == "Chat"


def test_the_author_is_known_from_the_settings_of_copier(template: Path, tmp_path: Path) -> None:
    known = Settings(defaults={"user_name": "Ada Lovelace", "user_email": "ada@example.com"})
    target = tmp_path / "project"
    copier.run_copy(str(template), target, defaults=True, unsafe=False, quiet=True, settings=known)
    answers = answers_of(target)
    assert (answers["author_name"], answers["author_email"]) == ("Ada Lovelace", "ada@example.com")
