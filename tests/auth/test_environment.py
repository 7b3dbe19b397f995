"""Key search: environment variables, Colab secrets and error messages."""

from __future__ import annotations

import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

from fal_async._auth import credentials
from fal_async._auth.credentials import Credentials
from fal_async._core.secrets import Secret
from fal_async.errors import MissingCredentialsError
from tests.support.oauth_server import Clock, Issuer, at_once, log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("environ", "authorization"),
    [
        ({"FAL_KEY": "id:secret"}, "Key id:secret"),
        ({"FAL_KEY": "id:secret\n"}, "Key id:secret"),
        ({"FAL_KEY_ID": "id ", "FAL_KEY_SECRET": "secret\n"}, "Key id:secret"),
        ({"FAL_KEY": "key", "FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret"}, "Key key"),
        ({"FAL_KEY": "  ", "FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret"}, "Key id:secret"),
        ({"FAL_KEY": "key", "FAL_FORCE_AUTH_BY_USER": "0"}, "Key key"),
    ],
)
async def test_environment_key_is_found_and_cached(
    environ: dict[str, str], authorization: str, tmp_path: Path
) -> None:
    log_in(tmp_path, access=Issuer.access(1))
    environ = {**environ, "FAL_HOME_DIR": str(tmp_path)}
    credentials = Credentials(environ=environ)
    assert await credentials.authorization() == authorization
    environ["FAL_KEY"] = "another"
    assert at_once(credentials) == authorization
    credentials.invalidate(Secret(authorization))
    assert not credentials.can_refresh
    assert at_once(credentials) == authorization


async def test_environment_is_read_on_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials = Credentials()
    monkeypatch.setenv("FAL_KEY", "id:secret")
    monkeypatch.delenv("FAL_FORCE_AUTH_BY_USER", raising=False)
    assert await credentials.authorization() == "Key id:secret"


async def test_login_can_be_forced(tmp_path: Path) -> None:
    log_in(tmp_path, access=Issuer.access(1))
    environ = {"FAL_KEY": "key", "FAL_FORCE_AUTH_BY_USER": "1", "FAL_HOME_DIR": str(tmp_path)}
    credentials = Credentials(environ=environ, clock=Clock())
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert await Credentials("mine", environ=environ).authorization() == "Key mine"


async def test_malformed_environment_key_stays_secret(tmp_path: Path) -> None:
    for environ in ({"FAL_KEY": "se cret"}, {"FAL_KEY_ID": "se", "FAL_KEY_SECRET": "cr et"}):
        with pytest.raises(MissingCredentialsError, match="holds whitespace") as caught:
            await Credentials(environ=environ, home=tmp_path).authorization()
        assert "se cret" not in str(caught.value)
        assert "cr et" not in str(caught.value)


async def test_error_names_every_searched_location(tmp_path: Path) -> None:
    environ = {"FAL_KEY": "", "FAL_KEY_ID": "id", "FAL_API_KEY": "hush", "fal_key": "hush"}
    with pytest.raises(MissingCredentialsError) as caught:
        await Credentials(environ=environ, home=tmp_path).authorization()
    assert str(caught.value) == (
        "no credentials were found: set FAL_KEY, pass key=, or run `fal auth login` "
        "(key= was not given; FAL_KEY is not set; FAL_KEY_ID with FAL_KEY_SECRET are not both set; "
        "the Colab secret FAL_KEY does not exist; "
        f"{tmp_path / '.fal' / 'auth0_token'} does not exist). "
        "Set but not used: FAL_API_KEY, fal_key"
    )
    assert caught.value.__suppress_context__


async def test_error_names_rejected_keys(tmp_path: Path) -> None:
    environ = {"FAL_KEY": "key", "FAL_FORCE_AUTH_BY_USER": "1"}
    with pytest.raises(MissingCredentialsError, match="FAL_FORCE_AUTH_BY_USER=1 disables"):
        await Credentials(environ=environ, home=tmp_path).authorization()


async def test_failed_search_is_repeated_later(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    credentials = Credentials(environ=environ, home=tmp_path)
    with pytest.raises(MissingCredentialsError):
        await credentials.authorization()
    environ["FAL_KEY"] = "id:secret"
    assert await credentials.authorization() == "Key id:secret"


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """Modules as in a Colab notebook, whose user allows the secret."""

    def get(name: str) -> str:
        vault.asked.append(name)
        assert threading.current_thread() is not threading.main_thread()
        if isinstance(vault.secret, Exception):
            raise vault.secret
        return str(vault.secret)

    vault = types.SimpleNamespace(secret="colab:secret\n", asked=[])
    shell = "<google.colab._shell.Shell object>"
    ipython: Any = types.SimpleNamespace(get_ipython=lambda: shell)
    userdata: Any = types.SimpleNamespace(get=get)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "google.colab.userdata", userdata)
    credentials._read_colab_secret.cache_clear()
    yield vault
    credentials._read_colab_secret.cache_clear()


async def test_colab_secret_is_requested_once(colab: types.SimpleNamespace, tmp_path: Path) -> None:
    for _ in range(2):
        credentials = Credentials(environ={}, home=tmp_path)
        assert await credentials.authorization() == "Key colab:secret"
    assert colab.asked == ["FAL_KEY"]


async def test_refused_colab_secret_is_remembered(
    colab: types.SimpleNamespace, tmp_path: Path
) -> None:
    colab.secret = PermissionError("the notebook may not see it")
    for _ in range(2):
        with pytest.raises(MissingCredentialsError, match="Colab secret FAL_KEY does not exist"):
            await Credentials(environ={}, home=tmp_path).authorization()
    assert colab.asked == ["FAL_KEY"]


async def test_environment_key_precedes_colab(colab: types.SimpleNamespace) -> None:
    assert await Credentials(environ={"FAL_KEY": "key"}).authorization() == "Key key"
    assert colab.asked == []


async def test_other_notebooks_are_not_colab(
    colab: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jupyter: Any = types.SimpleNamespace(get_ipython=lambda: "<ipykernel.zmqshell>")
    for module in (jupyter, types.ModuleType("IPython")):
        monkeypatch.setitem(sys.modules, "IPython", module)
        with pytest.raises(MissingCredentialsError):
            await Credentials(environ={}, home=tmp_path).authorization()
    assert colab.asked == []
