"""The settings: a mistake in one is a line that names it."""

from pathlib import Path

import pytest

from my_service.realtime.errors import ConfigurationError, SettingsError
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
        ("TRUSTED_PROXIES", "::ffff:10.0.0.1", "TRUSTED_PROXIES: '::ffff:10.0.0.1' is not an address or a network"),
        ("TRUSTED_PROXIES", "::ffff:0:0/96", "TRUSTED_PROXIES: '::ffff:0:0/96' is not an address or a network"),
        ("ROOT_PATH", "chat", "ROOT_PATH: is not the prefix of a path; write /chat"),
        ("ROOT_PATH", "/chat/", "ROOT_PATH: is not the prefix of a path; write /chat"),
        ("ROOT_PATH", "/chät", "ROOT_PATH: is not the prefix of a path; write /chat"),
        ("HOOK_SECONDS", "inf", "HOOK_SECONDS: Input should be a finite number"),
        ("HOOK_SECONDS", "1e308", "HOOK_SECONDS: Input should be less than or equal to 1000000000"),
        ("HOST", "", "HOST: is empty; write 127.0.0.1"),
        ("HOST", " ", "HOST: is empty; write 127.0.0.1"),
        ("SERVICE_HOST", "10.1.2.3", "SERVICE_HOST: set by a cluster for a service; set enableServiceLinks: false"),
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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ALOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("MESSAGES_PER_SECOND", "MAX_MESSAGES_PER_SECOND"),
        ("MAX_CONECTIONS", "MAX_CONNECTIONS"),
    ],
)
def test_a_setting_is_suggested_if_each_word_is_like_one_of_its_own(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}{name}", "1")
    with pytest.raises(SettingsError, match=f"; did you mean {PREFIX}{meant}\\?$"):
        Settings.load()


@pytest.mark.parametrize("name", ["NOPE", "WAIT_SECONDS", "JWT_SECRET", "MIN_CONNECTIONS"])
def test_a_setting_that_shares_the_prefix_or_the_end_alone_is_not_suggested(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}{name}", "1")
    with pytest.raises(SettingsError, match=f"^{PREFIX}{name}: there is no such setting$"):
        Settings.load()


def test_every_setting_in_seconds_is_bounded() -> None:
    timers = [name for name in Settings.model_fields if name.endswith("_seconds") or name.startswith("ping_")]
    assert len(timers) > 10
    for name in timers:
        with pytest.raises(SettingsError, match=f"{name.upper()}: Input should be less than or equal to"):
            Settings.load(**{name: 1e10})


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a user writes settings; tests read none by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    return tmp_path / ".env"


def test_a_file_that_is_no_utf_8_is_named(env_file: Path) -> None:
    env_file.write_text(f"{PREFIX}PORT=1", "utf-16")
    with pytest.raises(ConfigurationError, match=r"^\.env cannot be read: .*\nFix: save it as text in UTF-8"):
        Settings.load()


def test_a_byte_order_mark_hides_no_variable(env_file: Path) -> None:
    env_file.write_text(f"{PREFIX}PORT=1", "utf-8-sig")
    assert Settings.load().port == 1


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
