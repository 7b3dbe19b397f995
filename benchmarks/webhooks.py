"""The cost of verifying a callback, compared with a plain verifier that uses PyNaCl."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_PREFIX = "x-fal-webhook-"


def _by_hand(work: Work) -> Measures:
    """Verify as the documentation of the platform shows, with the keys at hand."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    from fal_async.emulator import Emulator

    with Emulator() as fal:
        signed = fal.sign({"text": "x" * work["bytes"]})
        found = httpx.get(f"{fal.hosts.rest}/.well-known/jwks.json").json()["keys"]
    keys = [VerifyKey(base64.urlsafe_b64decode(key["x"] + "=")) for key in found]

    def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        lower = {name.lower(): value for name, value in headers.items()}
        if abs(time.time() - int(lower[f"{_PREFIX}timestamp"])) > 300:
            return False
        lines = [lower[_PREFIX + name] for name in ("request-id", "user-id", "timestamp")]
        message = "\n".join([*lines, hashlib.sha256(body).hexdigest()]).encode()
        for key in keys:
            try:
                key.verify(message, bytes.fromhex(lower[f"{_PREFIX}signature"]))
            except BadSignatureError:
                continue
            return True
        return False

    verify(signed.body, signed.headers)
    section = work.section()
    with section:
        for _ in range(work["calls"]):
            verify(signed.body, signed.headers)
    section.units = work["calls"]
    return section.measures()


async def _verify(work: Work) -> Measures:
    return await _ours(work, "verify_signature")


async def _unwrap(work: Work) -> Measures:
    return await _ours(work, "unwrap")


async def _ours(work: Work, method: str) -> Measures:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator
    from fal_async.webhooks import Webhooks

    with Emulator() as fal:
        signed = fal.sign({"text": "x" * work["bytes"]})
        async with AsyncClient(fal.key, hosts=fal.hosts) as client:
            call: Any = getattr(Webhooks(client), method)
            await call(signed.body, signed.headers)
    section = work.section()
    with section:
        for _ in range(work["calls"]):
            await call(signed.body, signed.headers)
    section.units = work["calls"]
    return section.measures()


_BY_HAND, _OURS = "PyNaCl by hand", "ours, verify_signature"

BENCHMARK = Benchmark(
    name="webhooks",
    title=__doc__ or "",
    baseline=_BY_HAND,
    legs=(
        Leg(_BY_HAND, _by_hand, ("nacl", "starlette")),
        Leg(_OURS, on("asyncio", _verify), ("cryptography", "starlette")),
        Leg("ours, unwrap", on("asyncio", _unwrap), ("cryptography", "starlette")),
    ),
    cases=(
        Case("1 KB", {"bytes": 1000, "calls": 4000}),
        Case("100 KB", {"bytes": 100_000, "calls": 2000}),
    ),
    quick=(Case("1 KB", {"bytes": 1000, "calls": 20}),),
    columns=(
        Column("cpu_us", "CPU us"),
        Column("wall_us", "us a verification"),
        Column("per_s", "a second"),
        Column("peak_mb", "peak MB"),
    ),
    bars=(
        Bar("CPU of a verification, of PyNaCl's by hand", "cpu_us", "1 KB", _OURS,
            against=_BY_HAND, at_most=3),
    ),
)  # fmt: skip
