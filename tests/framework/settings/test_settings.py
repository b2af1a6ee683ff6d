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
        ("HOST", "", "HOST: is empty; write 127.0.0.1"),
        ("HOST", " ", "HOST: is empty; write 127.0.0.1"),
        ("SERVICE_HOST", "10.1.2.3", "SERVICE_HOST: set by a cluster for a service; write enableServiceLinks: false"),
        ("REDIS_PORT", "tcp://10.1.2.3:6379", "REDIS_PORT: set by a cluster for a service"),
        ("PORT_80_TCP_ADDR", "10.1.2.3", "PORT_80_TCP_ADDR: set by a cluster for a service"),
        ("REDIS_SERVICE_PORT_HTTP", "80", "REDIS_SERVICE_PORT_HTTP: set by a cluster for a service"),
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


def test_what_kubernetes_sets_is_one_line_that_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PORT": "tcp://10.1.2.3:80",
        "SERVICE_HOST": "10.1.2.3",
        "PORT_80_TCP": "tcp://10.1.2.3:80",
    }.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(
        SettingsError, match=rf"^{PREFIX}PORT and 2 more: set by a cluster.*enableServiceLinks: false"
    ) as error:
        Settings.load()
    assert "did you mean" not in str(error.value)
