"""A plugin for pytest: an emulated platform for each test, and no requests to the real one.

pytest loads it where this package is installed; ``-p no:fal_async`` disables it. The fixtures need
the extra ``emulator``, and nothing of it is imported before a test uses one.

Fixtures:

- `fal`: the emulator, in a fresh state for each test, with the environment set.
- `fal_session`: the emulator of all tests, for endpoints that all tests share.
- `make_fal`: starts further emulators, with any settings.
- `async_fal_client` and `sync_fal_client`: clients of `fal`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fal_async.pytest_plugin._network import Network, RealHostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator
    from fal_async.sync import SyncClient

__all__ = [
    "RealHostError",
    "async_fal_client",
    "fal",
    "fal_session",
    "make_fal",
    "pytest_addoption",
    "pytest_configure",
    "pytest_unconfigure",
    "sync_fal_client",
]

_MARKER = (
    "fal(allow_unexpected=False, **settings): settings of the emulator for a test, as for "
    "Emulator.configure; allow_unexpected accepts requests for endpoints that are not registered"
)
_network = pytest.StashKey[Network]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the configuration."""
    hosts_help = "real hosts of the platform that tests may reach, or * for all"
    group = parser.getgroup("fal_async")
    group.addoption("--fal-allow-hosts", action="append", metavar="HOST", help=hosts_help)
    parser.addini("fal_allow_hosts", hosts_help, type="args", default=[])
    parser.addini(
        "fal_allow_unexpected",
        "whether tests may send requests for endpoints that are not registered",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse the real hosts."""
    config.addinivalue_line("markers", _MARKER)
    hosts: list[str] = config.getini("fal_allow_hosts")
    options: list[str] = config.getoption("--fal-allow-hosts") or []
    allowed = [host for option in options for host in option.replace(",", " ").split()]
    network = config.stash[_network] = Network([*hosts, *allowed])
    network.block()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Allow all hosts again."""
    network = config.stash.get(_network, None)
    if network is not None:
        network.unblock()


@pytest.fixture(scope="session")
def fal_session() -> Iterator[Emulator]:
    """Start the emulator of all tests, on a port and in a thread of its own.

    Override the fixture to register endpoints for all tests:

    .. code-block:: python

        @pytest.fixture(scope="session")
        def fal_session(fal_session: Emulator) -> Emulator:
            fal_session.register("acme/upper", upper)
            return fal_session
    """
    from fal_async.emulator import Emulator  # loads uvicorn

    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def fal(fal_session: Emulator, request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Provide the emulator in a fresh state, and point the environment at it.

    The module-level functions, clients that the test or its code makes, and `fal_client` use the
    emulator. At the end all jobs are cancelled, and endpoints, settings and keys of the test are
    removed. The test fails if it sent requests for endpoints that were not registered; the marker
    ``fal(allow_unexpected=True)`` or the setting ``fal_allow_unexpected`` accepts them.
    """
    from fal_async.pytest_plugin._environment import environment  # loads the client

    __tracebackhide__ = True
    settings: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("fal"))):  # the closest one last
        if marker.args:
            raise pytest.UsageError("the marker fal takes keyword arguments only")
        settings |= marker.kwargs
    allowed = settings.pop("allow_unexpected", request.config.getini("fal_allow_unexpected"))
    with fal_session.isolated() as emulator, environment(emulator):
        emulator.reset()
        try:
            emulator.configure(**settings)
        except ValueError as error:
            raise pytest.UsageError(f"the marker fal is not valid: {error}") from None
        yield emulator
        unexpected, endpoints = emulator.unexpected_requests, emulator.endpoints
    if unexpected and not allowed:
        counts = Counter((found.route, found.endpoint) for found in unexpected)
        lines = [f"  {route} {endpoint} ({count})" for (route, endpoint), count in counts.items()]
        head = "the emulator received requests for endpoints that are not registered:"
        remedy = (
            f"registered: {', '.join(endpoints) or 'none'}. Register the others with "
            "fal.register, or accept the requests by @pytest.mark.fal(allow_unexpected=True)"
        )
        pytest.fail("\n".join([head, *lines, remedy]), pytrace=False)


@pytest.fixture
def make_fal() -> Iterator[Callable[..., Emulator]]:
    """Provide a function that starts another emulator; its parameters are those of `Emulator`.

    The environment is not changed: pass ``key`` and ``hosts`` to its clients. The emulators are
    stopped after the test.
    """
    from fal_async.emulator import Emulator  # loads uvicorn

    started: list[Emulator] = []

    def make(**settings: Any) -> Emulator:
        emulator = Emulator(**settings).start()
        started.append(emulator)
        return emulator

    yield make
    for emulator in started:
        emulator.stop()


@pytest.fixture
def async_fal_client(fal: Emulator) -> AsyncClient:
    """Provide an async client of `fal`, for one event loop or several.

    The fixture is not async, so that every plugin for async tests can use it. The connections are
    closed when their event loop ends.
    """
    from fal_async import AsyncClient  # loads the client

    return AsyncClient(fal.key, hosts=fal.hosts)


@pytest.fixture
def sync_fal_client(fal: Emulator) -> Iterator[SyncClient]:
    """Provide a blocking client of `fal`, closed after the test."""
    from fal_async.sync import SyncClient  # loads the client

    with SyncClient(fal.key, hosts=fal.hosts) as client:
        yield client
