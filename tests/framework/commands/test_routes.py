"""The list of the paths, as a terminal shows it."""

import pytest

from my_service.realtime.__main__ import main


def test_it_lists_each_path_with_its_messages_and_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes"]) == 0
    written = capsys.readouterr().out
    assert (
        "/ws/echo\n"
        "  handler  my_service.listeners.echo.echo\n"
        "  takes    Say\n"
        "  answers  Said\n"
        "/ws/rooms/{room}\n"
        "  handler  my_service.listeners.rooms.Rooms.on_receive\n"
        "  takes    Say\n"
        "  sends    Joined, Left, SaidInRoom, Gap\n"
        "  query    after\n"
    ) in written
    assert "Limits: MAX_MESSAGE_SIZE 65536, " in written
