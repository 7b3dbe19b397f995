"""Fixtures of journals: the same tests run on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import needs_postgres, postgres_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import PostgresServer

__all__ = ["postgres_server"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def journal_path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path or URL of a journal that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "journal.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_schema()
