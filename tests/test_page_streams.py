"""A model that answers in tokens, on the live page: streamed, stopped, and over a restart of the service."""

import signal
from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, expect

from .browser import MILLISECONDS, network, open_page
from .service import add_listener, running

expect.set_options(timeout=MILLISECONDS)

ASK = '''\
"""/ws/ask: a model that answers in tokens, as a large one does, with a pause before each."""

import asyncio
from collections.abc import AsyncGenerator

from litestar.di import NamedDependency
from msgspec import Struct

from ..realtime import listener


class Ask(Struct, tag="ask"):
    """A question to the model."""

    prompt: str
    model: str = "fake"


class Token(Struct, tag="token"):
    """A piece of the answer."""

    text: str


class Model:
    """A fake one: it counts, for ever where it is asked to."""

    async def stream(self, prompt: str) -> AsyncGenerator[str, None]:
        number = 0
        while number < 5 or prompt == "for ever":
            number += 1
            yield f" {number}"
            await asyncio.sleep(0.01)


async def provide_model() -> Model:
    return Model()


@listener("/ws/ask", dependencies={"model": provide_model})
async def ask(data: Ask, model: NamedDependency[Model]) -> AsyncGenerator[Token, None]:
    """Answer a question token by token."""
    async for text in model.stream(data.prompt):
        yield Token(text=text)
'''


def test_a_stream_is_shown_stopped_and_asked_for_again_after_a_restart(context: BrowserContext, project: Path) -> None:
    add_listener(project, "ask", ASK)
    with (
        running(project, drain_seconds=0, grace_seconds=0) as service,
        running(project) as next_service,  # is there at once: the client waits longer with each attempt that fails
        network(service.address) as way,
    ):
        page = open_page(context.new_page(), way.address)
        model = page.get_by_role("article", name="Stream ws/ask #4")
        log, stop, status = model.get_by_role("log"), model.get_by_role("button", name="Stop"), model.locator(".badge")
        expect(status).to_have_text("open")
        expect(stop).to_be_hidden()
        for prompt in ("count", "for ever"):
            ask(model, prompt)
            expect(log).to_contain_text(f"{prompt} 1 2 3 4 5")
            if prompt == "for ever":
                stop.click()
            expect(log).to_contain_text("stopped" if prompt == "for ever" else "the stream has ended")
            expect(stop).to_be_hidden()
        ask(model, "for ever")
        expect(stop).to_be_visible()
        way.target = next_service.address
        assert service.ended(signal.SIGTERM) == 0
        expect(log).to_contain_text("ConnectionLost: 1012 service restarts")
        expect(stop).to_be_hidden()
        expect(status).to_have_text("open")
        ask(model, "again")
        expect(log).to_contain_text("again 1 2 3 4 5the stream has ended")


def ask(model: Locator, prompt: str) -> None:
    model.get_by_placeholder("Ask").fill(prompt)
    model.get_by_role("button", name="Ask", exact=True).click()


def test_a_button_opens_another_card_of_a_stream(context: BrowserContext, project: Path) -> None:
    add_listener(project, "ask", ASK)
    with running(project) as service:
        page = open_page(context.new_page(), service.address)
        page.get_by_role("button", name="Open ws/ask").click()
        expect(page.get_by_role("article", name="Stream ws/ask #5").locator(".badge")).to_have_text("open")


def test_without_a_listener_that_streams_there_is_no_such_card(context: BrowserContext, default_project: Path) -> None:
    with running(default_project) as service:
        page = open_page(context.new_page(), service.address)
        expect(page.get_by_role("article")).to_have_count(3)
        expect(page.get_by_role("button", name="Open")).to_have_count(1)
