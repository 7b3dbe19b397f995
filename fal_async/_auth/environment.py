"""Keys in environment variables and in Colab; the directory of logins."""

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
    """Return the first key in the environment; blocking, since Colab may ask its user.

    Raises:
        MissingCredentialsError: The key is invalid.
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
    parts = [environ.get(name).strip() for name in ("FAL_KEY_ID", "FAL_KEY_SECRET")]
    return ":".join(parts) if all(parts) else ""


def _colab_secret(_: Variables) -> str:
    # Colab has imported IPython; importing it elsewhere would take a second.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return _read_colab_secret() if shell is not None and "google.colab" in str(shell()) else ""


@functools.cache
def _read_colab_secret() -> str:
    """Read the secret once per process, since Colab may show its user a dialog."""
    try:
        secret = importlib.import_module("google.colab.userdata").get("FAL_KEY")
    except Exception:  # noqa: BLE001 -- Colab raises errors of its own classes
        return ""
    return secret if isinstance(secret, str) else ""


#: The sources of keys: the name, the message if there is no key, and the lookup.
_KEY_SOURCES: Final[tuple[tuple[str, str, Callable[[Variables], str]], ...]] = (
    ("FAL_KEY", "is not set", lambda environ: environ.get("FAL_KEY")),
    ("FAL_KEY_ID with FAL_KEY_SECRET", "are not both set", _key_pair),
    ("the Colab secret FAL_KEY", "does not exist", _colab_secret),
)


def fal_home(environ: Variables, home: Path | None) -> Path:
    """Return the directory of the official tools; ``None`` uses the user's home directory."""
    if directory := environ.get("FAL_HOME_DIR").strip():
        return _expand_user(directory)
    return (home or _expand_user("~")) / ".fal"


def _expand_user(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- pathlib raises without a home directory


def missing_credentials_message(environ: Variables, login_problem: str) -> str:
    """Return the message for missing credentials, with all sources and similar variables."""
    sources = [f"{name} {absence}" for name, absence, _ in _KEY_SOURCES]
    if _login_only(environ):
        sources = ["FAL_FORCE_AUTH_BY_USER=1 disables the keys of the environment"]
    text = "no credentials were found: set FAL_KEY, pass key=, or run `fal auth login`"
    text += f" (key= was not given; {'; '.join(sources)}; {login_problem})"
    if found := similar_variables(environ):
        text += f". Set but not used: {', '.join(found)}"
    return text
