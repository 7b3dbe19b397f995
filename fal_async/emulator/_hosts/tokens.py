"""The service of ``rest.fal.ai`` that gives tokens for sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._json import decode_or_none
from fal_async.emulator._replies import Refusal, detail

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._tokens import Tokens

#: Seconds that a token is good for unless its caller says otherwise.
_USUAL_LIFE = 120


def token_body(exchange: Exchange, tokens: Tokens) -> str | dict[str, str]:
    """The token that is asked for: the service has one address for clients, one for documents."""
    wishes: object = decode_or_none(exchange.body)
    if not isinstance(wishes, dict):
        raise Refusal(detail(422, "the body must be a JSON object"))
    wanted = cast("dict[str, Any]", wishes)
    token = tokens.mint(_apps(wanted), _seconds(wanted))
    return {"token": token} if exchange.place.path.endswith("/realtime") else token


def _apps(wanted: dict[str, Any]) -> list[str]:
    apps: object = wanted.get("allowed_apps", [wanted.get("app")])
    if isinstance(apps, list):
        names = [name for name in cast("list[object]", apps) if isinstance(name, str) and name]
        if names:
            return names
    raise Refusal(detail(422, "allowed_apps must be a list of apps"))


def _seconds(wanted: dict[str, Any]) -> float:
    seconds: object = wanted.get("token_expiration", wanted.get("duration", _USUAL_LIFE))
    if isinstance(seconds, int | float) and seconds > 0:
        return seconds
    raise Refusal(detail(422, "token_expiration must be a number of seconds"))
