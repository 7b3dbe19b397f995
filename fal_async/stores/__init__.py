"""Small values under text keys, kept for a limited time.

Receivers of webhooks and proxies remember in a `Store` which callbacks they have handled and whose
job is whose. `MemoryStore` serves one process, `SQLiteStore` the processes of one machine. Any
object with the four methods of `Store`, over Redis for example, serves more.
"""

from __future__ import annotations

from fal_async._core.annotations import make_resolvable, set_module
from fal_async.stores._memory import MemoryStore
from fal_async.stores._protocol import Store
from fal_async.stores._sqlite import SQLiteStore

__all__ = ["MemoryStore", "SQLiteStore", "Store"]

for _public in (MemoryStore, SQLiteStore, Store):
    make_resolvable(set_module(__name__)(_public))
