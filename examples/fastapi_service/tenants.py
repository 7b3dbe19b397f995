"""The tenants of the service, each with a key of its own."""

import json
import os
from dataclasses import dataclass, field

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fal_async import AsyncClient


@dataclass(frozen=True)
class Tenant:
    """A customer. Without a key, the service pays with its own."""

    name: str
    key: str | None = field(default=None, repr=False)

    def client(self, shared: AsyncClient) -> AsyncClient:
        """Return a client with the key of the tenant, over the shared connections."""
        return shared if self.key is None else shared.with_options(key=self.key)


def load_tenants() -> dict[str, Tenant]:
    """Read the tenants by their tokens; a real service has a database."""
    text = os.environ.get("SERVICE_TENANTS", '{"demo": {"name": "demo"}}')
    return {token: Tenant(**fields) for token, fields in json.loads(text).items()}


TENANTS = load_tenants()


def current_tenant(connection: HTTPConnection) -> Tenant:
    """Return the tenant of a request or a WebSocket, by its cookie or its token."""
    token = connection.cookies.get("token") or (
        connection.headers.get("authorization", "").removeprefix("Bearer ")
    )
    if token not in TENANTS:
        raise HTTPException(401, "log in first")
    return TENANTS[token]
