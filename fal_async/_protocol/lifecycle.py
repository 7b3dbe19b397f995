"""How long uploaded files live, and who may read them: settings into headers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fal_async._checks import check_instance
from fal_async.types import StorageSettings

if TYPE_CHECKING:
    from fal_async.types import StorageACL

__all__ = ["lifecycle_headers"]


def lifecycle_headers(settings: StorageSettings | None) -> dict[str, str]:
    """The headers that carry the settings; none when they leave everything to the platform."""
    wishes = {} if settings is None else _wishes(settings)
    if not wishes:
        return {}
    text = json.dumps(wishes)  # in ASCII, as headers are
    # The CDN reads the one, the storage service the other.
    return {"x-fal-object-lifecycle": text, "x-fal-object-lifecycle-preference": text}


def _wishes(settings: StorageSettings) -> dict[str, Any]:
    check_instance("lifecycle", settings, StorageSettings)
    wishes: dict[str, Any] = {
        "expiration_duration_seconds": settings.seconds,
        "initial_acl": _acl(settings.initial_acl),
    }
    return {name: value for name, value in wishes.items() if value}


def _acl(acl: StorageACL | None) -> dict[str, Any]:
    if acl is None:
        return {}
    rules = [{"user": rule.user, "decision": rule.decision} for rule in acl.rules or ()]
    wishes: dict[str, Any] = {"default": acl.default, "rules": rules}
    return {name: value for name, value in wishes.items() if value}
