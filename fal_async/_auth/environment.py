"""What the process has around it: keys in variables and in Colab, and the place of a login."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fal_async._core.secrets import Secret
from fal_async._protocol.credentials import (
    AuthHeader,
    auth_header_from_key,
    similar_variables,
    validate_key,
)
from fal_async.errors import MissingCredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._core.secrets import Variables

__all__ = ["fal_home", "find_key", "missing_credentials_message"]


def find_key(environ: Variables) -> AuthHeader | None:
    """The first key in the environment; blocking, as Colab may ask its user.

    Raises:
        MissingCredentialsError: There is one, but it cannot be sent.
    """
    if _login_only(environ):
        return None
    for source, _, find in _KEY_SOURCES:
        key = Secret(find(environ).strip())
        problem = validate_key(key.reveal())
        if key.reveal() and problem:
            raise MissingCredentialsError(f"{source} {problem}")
        if key.reveal():
            return auth_header_from_key(key, source)
    return None


def _login_only(environ: Variables) -> bool:
    return environ.get("FAL_FORCE_AUTH_BY_USER") == "1"


def _key_pair(environ: Variables) -> str:
    halves = [environ.get(name).strip() for name in ("FAL_KEY_ID", "FAL_KEY_SECRET")]
    return ":".join(halves) if all(halves) else ""


def _colab_secret(_: Variables) -> str:
    # Whoever runs in Colab has IPython loaded; importing it elsewhere would cost a second.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return _read_colab_secret() if shell is not None and "google.colab" in str(shell()) else ""


@functools.cache
def _read_colab_secret() -> str:
    """Ask the user, who may be shown a dialog, for the secret: once in the life of the process."""
    try:
        secret = importlib.import_module("google.colab.userdata").get("FAL_KEY")
    except Exception:  # noqa: BLE001 -- whatever has no hash
        return ""
    return secret if isinstance(secret, str) else ""


#: Where a key may be: the name of the place, what is said when there is none, and how to look.
_KEY_SOURCES: Final[tuple[tuple[str, str, Callable[[Variables], str]], ...]] = (
    ("FAL_KEY", "is not set", lambda environ: environ.get("FAL_KEY")),
    ("FAL_KEY_ID with FAL_KEY_SECRET", "are not both set", _key_pair),
    ("the Colab secret FAL_KEY", "is not there", _colab_secret),
)


def fal_home(environ: Variables, home: Path | None) -> Path:
    """Where the official tools keep their files; `home` is the user's own when it is ``None``."""
    if directory := environ.get("FAL_HOME_DIR").strip():
        return _expand_user(directory)
    return (home or _expand_user("~")) / ".fal"


def _expand_user(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- pathlib raises where there is no home


def missing_credentials_message(environ: Variables, login_problem: str) -> str:
    """Say that there are no credentials, where was looked, and what was found that nobody reads."""
    places = [f"{place} {absence}" for place, absence, _ in _KEY_SOURCES]
    if _login_only(environ):
        places = ["FAL_FORCE_AUTH_BY_USER=1 rules out the keys of the environment"]
    text = "no credentials were found: set FAL_KEY, pass key=, or run `fal auth login`"
    text += f" (key= was not given; {'; '.join(places)}; {login_problem})"
    if found := similar_variables(environ):
        text += f". Set but not read: {', '.join(found)}"
    return text
