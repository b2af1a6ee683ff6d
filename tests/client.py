"""Drives `client.js` in a browser: a socket in `window.socket`, and what it receives and becomes."""

from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Page

OPEN = """async ([path, options, tokens, first]) => {
  const { ReconnectingWebSocket } = await import("/page/client.js");
  Object.assign(window, { received: [], states: [], delays: [], asked: 0 });
  const nextOf = async (tokens) => {
    const token = tokens[Math.min(asked++, tokens.length - 1)];
    if (token === null) throw new Error("nobody is logged in");
    return token;
  };
  window.socket = new ReconnectingWebSocket(path, {
    baseDelay: 10, maxDelay: 100, pingInterval: 0,
    ...options,
    ...(tokens && { token: () => nextOf(tokens) }),
    onMessage: (message) => received.push(message),
    onState: (state) => {
      states.push(state);
      if (state.retryAt) delays.push(state.retryAt - Date.now());
    },
  }).open();
  return first.map((message) => window.socket.send(message));
}"""


def open_socket(page: Page, path: str = "/ws/echo", tokens: Sequence[str | None] | None = None, **options: Any) -> None:
    """Open a socket, and wait until it is open.

    Args:
        tokens: What it shows, one after the other, and the last for ever; None stands for one that cannot be had.
        options: Those of the client.
    """
    begin(page, path, tokens, **options)
    becomes(page, "open")


def begin(
    page: Page,
    path: str = "/ws/echo",
    tokens: Sequence[str | None] | None = None,
    first: Sequence[dict[str, Any]] = (),
    **options: Any,
) -> list[str]:
    """Open a socket, send the first messages, and wait for nothing; return what became of each of them."""
    fates: list[str] = page.evaluate(OPEN, [path, options, tokens, [*first]])
    return fates


def becomes(page: Page, status: str) -> dict[str, Any]:
    """Wait until it has this status; return its state."""
    page.wait_for_function("(status) => socket.state.status === status", arg=status, polling=10)
    state: dict[str, Any] = page.evaluate("socket.state")
    return state


def first_close(page: Page) -> dict[str, Any]:
    """Wait until a connection has ended; return how the first one did."""
    page.wait_for_function("() => states.some((state) => state.lastClose)", polling=10)
    close: dict[str, Any] = page.evaluate("states.find((state) => state.lastClose).lastClose")
    return close


def ends(page: Page, reason: str) -> None:
    """Wait until it has ended a connection for this reason; on a busy machine a short time-out ends others before."""
    found = "(reason) => states.some(({ lastClose }) => lastClose?.code === 1006 && lastClose.reason === reason)"
    page.wait_for_function(found, arg=reason, polling=10)


def statuses(page: Page) -> list[str]:
    found: list[str] = page.evaluate("states.map((state) => state.status)")
    return found


def say(page: Page, text: str) -> str:
    fate: str = page.evaluate("(text) => socket.send({ type: 'say', text })", text)
    return fate


def wait_for_messages(page: Page, number: int) -> list[dict[str, Any]]:
    """Wait until it has received so many messages; return all that it has."""
    page.wait_for_function("(number) => received.length >= number", arg=number, polling=10)
    received: list[dict[str, Any]] = page.evaluate("received")
    return received


def wait_for_text(page: Page, text: str) -> None:
    """Wait until it has received a message with this text."""
    page.wait_for_function("(text) => received.some((message) => message.text === text)", arg=text, polling=10)


def texts(page: Page) -> list[str]:
    """Return the texts that it has received from a room."""
    received: list[dict[str, Any]] = page.evaluate("received")
    return [message["text"] for message in received if message["type"] == "said"]
