"""The settings: a mistake in one is a line that names it."""

import pytest

from my_service.realtime.errors import SettingsError
from my_service.realtime.settings import PREFIX
from my_service.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("PROT", "1", "PROT: there is no such setting; did you mean {prefix}PORT?"),
        ("PORT", "many", "PORT: Input should be a valid integer"),
        ("PORT", "70000", "PORT: Input should be less than or equal to 65535"),
        ("MAX_MESSAGE_SIZE", "0", "MAX_MESSAGE_SIZE: Input should be greater than or equal to 1"),
        ("TRUSTED_PROXIES", "10.0.0.1, proxy", "TRUSTED_PROXIES: 'proxy' is not an address or a network"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "TRUSTED_PROXIES: '10.0.0.1/8' is not an address or a network"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(SettingsError) as error:
        Settings.load()
    message = str(error.value)
    assert message.startswith(f"{PREFIX}{problem.format(prefix=PREFIX)}")
    assert "\n" not in message


@pytest.mark.parametrize("proxies", ["", "*", "10.0.0.1", "10.0.0.0/8, ::1"])
def test_proxies_are_addresses_and_networks(proxies: str) -> None:
    assert Settings.load(trusted_proxies=proxies).trusted_proxies == proxies
