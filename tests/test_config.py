"""What a client is configured with is right from the start, or refused."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async import Hosts, InvalidRequestError, Limits, RetryPolicy


def test_the_hosts_are_the_platforms() -> None:
    assert Hosts() == Hosts(
        run="https://fal.run",
        queue="https://queue.fal.run",
        rest="https://rest.fal.ai",
        cdn="https://v3.fal.media",
        ws="wss://ws.fal.run",
        platform="https://api.fal.ai",
    )


def test_one_origin_may_serve_all() -> None:
    assert Hosts.at("http://127.0.0.1:8000/") == Hosts(
        run="http://127.0.0.1:8000/run",
        queue="http://127.0.0.1:8000/queue",
        rest="http://127.0.0.1:8000/rest",
        cdn="http://127.0.0.1:8000/cdn",
        ws="ws://127.0.0.1:8000/ws",
        platform="http://127.0.0.1:8000/platform",
    )
    assert Hosts.at("https://fal.example/base").ws == "wss://fal.example/base/ws"
    assert Hosts.at("HTTPS://fal.example").ws == "wss://fal.example/ws"


@pytest.mark.parametrize("name", ["run", "queue", "rest", "cdn", "platform"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://fal.example", "https://fal.example"),
        ("https://fal.example/", "https://fal.example"),
        ("https://fal.example/a//", "https://fal.example/a"),
        ("http://[::1]:8000/a", "http://[::1]:8000/a"),
        ("HTTP://localhost", "http://localhost"),
        ("https://fal.example?", "https://fal.example"),
    ],
)
def test_a_base_url_has_no_slash_at_its_end(name: str, given: str, kept: str) -> None:
    assert getattr(Hosts(**{name: given}), name) == kept


@pytest.mark.parametrize("name", [field.name for field in fields(Hosts)])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "fal.run",
        "//fal.run",
        "/run",
        "ftp://fal.run",
        "https:fal.run",
        "https://",
        "https:///run",
        "https://:443",
        "https://fal.run?x=1",
        "https://fal.run#x",
        "https://user@fal.run",
        "https://user:pw@fal.run",
        "https://fal.run\\@evil.example",
        "https://fal.run evil.example",
        "https://fal.run\n",
        "https://fal.run\x00",
        "https://fal.run:port",
        "https://fal.run:99999",
        "https://[::1",
        None,
        7,
        b"https://fal.run",
    ],
)
def test_what_is_no_base_url_is_refused_by_name(name: str, url: Any) -> None:
    if name == "ws" and isinstance(url, str):
        url = url.replace("https", "wss")
    with pytest.raises(InvalidRequestError, match=f"the {name} host must be"):
        Hosts(**{name: url})


def test_a_socket_host_is_no_web_host() -> None:
    with pytest.raises(InvalidRequestError, match="ws:// or wss://"):
        Hosts(ws="https://ws.fal.run")
    with pytest.raises(InvalidRequestError, match="http:// or https://"):
        Hosts(run="wss://fal.run")
    with pytest.raises(InvalidRequestError):
        Hosts.at("wss://fal.run")


def test_refused_url_is_not_shown() -> None:
    for url in ("https://user:hunter2@fal.run", "user:hunter2@fal.run", "ftp://u:hunter2@h"):
        with pytest.raises(InvalidRequestError) as caught:
            Hosts(run=url)
        assert "hunter2" not in str(caught.value)


@given(st.text() | st.text("htps:/.@[]\\ ?#a1", max_size=20))
def test_any_text_is_a_base_url_or_our_error(url: str) -> None:
    try:
        hosts = Hosts(run=url)
    except InvalidRequestError:
        return
    assert hosts.run.startswith(("http://", "https://"))
    assert not hosts.run.endswith("/")
    assert Hosts(run=hosts.run) == hosts


@pytest.mark.parametrize(
    ("environ", "hosts"),
    [
        ({}, Hosts()),
        ({"FAL_RUN_HOST": "", "FAL_QUEUE_RUN_HOST": " ", "FAL_ASYNC_BASE_URL": "\n"}, Hosts()),
        (
            {"FAL_RUN_HOST": "fal.example:8443"},
            Hosts(
                run="https://fal.example:8443",
                queue="https://queue.fal.example:8443",
                ws="wss://ws.fal.example:8443",
            ),
        ),
        (
            {"FAL_RUN_HOST": " fal.example\n", "FAL_QUEUE_RUN_HOST": "q.example"},
            Hosts(run="https://fal.example", queue="https://q.example", ws="wss://ws.fal.example"),
        ),
        ({"FAL_QUEUE_RUN_HOST": "q.example"}, Hosts(queue="https://q.example")),
        (
            {"FAL_ASYNC_BASE_URL": "http://127.0.0.1:8000", "FAL_RUN_HOST": "fal.example"},
            Hosts.at("http://127.0.0.1:8000"),
        ),
    ],
)
def test_the_environment_names_hosts(environ: dict[str, str], hosts: Hosts) -> None:
    assert Hosts.from_environment(environ) == hosts


@pytest.mark.parametrize(
    "environ",
    [
        {"FAL_RUN_HOST": "https://fal.run"},
        {"FAL_RUN_HOST": "fal.run/path"},
        {"FAL_RUN_HOST": "user@fal.run"},
        {"FAL_QUEUE_RUN_HOST": "http://queue.fal.run"},
    ],
)
def test_a_host_of_the_environment_has_no_scheme(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match=f"{next(iter(environ))} must be a host"):
        Hosts.from_environment(environ)


@pytest.mark.parametrize(
    "environ", [{"FAL_RUN_HOST": "fal run"}, {"FAL_ASYNC_BASE_URL": "127.0.0.1:8000"}]
)
def test_nonsense_in_the_environment_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        Hosts.from_environment(environ)


@pytest.mark.parametrize(
    "values",
    [
        {"control": 0},
        {"control": -1},
        {"held": 0},
        {"uploads": 0},
        {"downloads": 0},
        {"part_size": 0},
        {"max_streams": -1},
        {"polls_per_second": 0},
        {"polls_per_second": -1.0},
        {"polls_per_second": math.nan},
    ],
)
def test_limits_that_allow_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(values))):
        Limits(**values)


def test_the_defaults_are_these() -> None:
    assert Limits() == Limits(
        control=100,
        held=1000,
        max_streams=256,
        polls_per_second=1000.0,
        uploads=16,
        downloads=64,
        part_size=10_485_760,
        single_shot=104_857_600,
        reused_uploads=1000,
    )
    assert RetryPolicy() == RetryPolicy(
        attempts=5,
        base_delay=0.25,
        max_delay=8.0,
        budget=60.0,
        max_retry_after=60.0,
        result_budget=3600.0,
    )
    assert RetryPolicy(attempts=1).attempts == 1


def test_the_smallest_limits() -> None:
    smallest = {"control": 1, "held": 1, "max_streams": 0, "uploads": 1, "downloads": 1}
    assert Limits(**smallest, part_size=1, single_shot=0, polls_per_second=0.1).max_streams == 0


@pytest.mark.parametrize("name", ["base_delay", "max_delay", "budget", "max_retry_after"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_a_policy_has_finite_times(name: str, value: float) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        RetryPolicy(**{name: value})  # type: ignore[arg-type] # by name


@pytest.mark.parametrize("attempts", [0, -1])
def test_a_policy_tries_at_least_once(attempts: int) -> None:
    with pytest.raises(InvalidRequestError, match="attempts"):
        RetryPolicy(attempts=attempts)


def test_a_policy_may_do_without_pauses() -> None:
    assert RetryPolicy(base_delay=0, max_delay=0, budget=0, max_retry_after=0).budget == 0


@pytest.mark.parametrize(
    "value", [Hosts.at("http://localhost"), Limits(held=7), RetryPolicy(attempts=2)], ids=repr
)
def test_configuration_is_a_value(value: Any) -> None:
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert again == value
        assert hash(again) == hash(value)
    assert value != type(value)()
    assert eval(repr(value)) == value  # its text is the code that makes it
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, 1)
