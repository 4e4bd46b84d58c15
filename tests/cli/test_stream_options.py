"""What `vivace serve` makes of its options about streams."""

from pathlib import Path

import pytest

from vivace.cli.load_options import load_config
from vivace.cli.main import build_parser
from vivace.cli.stream_options import stream_settings, transport_settings
from vivace.server.load_steps import Step
from vivace.stream.shared_store import IN_MEMORY, StoreConfig
from vivace.types.errors import ConfigError


def parsed(*options: str) -> dict[str, object]:
    return stream_settings(build_parser(["serve"]).parse_args(["serve", *options]))


def test_timeouts_have_defaults_are_chosen_and_may_be_off() -> None:
    for options, times in (
        ((), (10.0, 30.0)),
        (("--soft-timeout", "2", "--hard-timeout", "5.5"), (2.0, 5.5)),
        (("--soft-timeout", "0", "--hard-timeout", "0"), (None, None)),
    ):
        streams = parsed(*options)["streams"]
        assert (streams.soft_timeout_s, streams.hard_timeout_s) == times  # type: ignore[attr-defined]
    for wrong in ("-1", "1e9"):
        with pytest.raises(ConfigError, match="soft-timeout"):
            parsed("--soft-timeout", wrong)


def test_a_store_is_a_file_or_a_url_which_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIVACE_STREAM_STORE", raising=False)
    assert parsed()["store"] == IN_MEMORY
    assert parsed("--stream-file", "a.db")["store"] == StoreConfig(file=Path("a.db"))
    assert parsed("--stream-store", "redis://a", "--stream-lease", "2")["store"] == StoreConfig(None, "redis://a", 2.0)
    monkeypatch.setenv("VIVACE_STREAM_STORE", "redis://b")
    assert parsed()["store"] == StoreConfig(url="redis://b")


def test_limits_of_networks_and_steps_against_load_are_read() -> None:
    options = ["serve", "--poor-rtt", "100", "--poor-send-every", "0", "--degrade", "background,max_tokens=9"]
    arguments = build_parser(["serve"]).parse_args([*options, "--degrade-at", "3"])
    network = transport_settings(arguments).network
    assert (network.poor_rtt_s, network.poor_wait_s, network.send_every_s) == (0.1, 0.2, 0.0)
    load = load_config(arguments)
    assert (load.steps, load.at) == ((Step("background"), Step("max_tokens", "9")), 3)
