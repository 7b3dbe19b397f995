"""Limits of the operating system for a process."""

from __future__ import annotations

import resource

__all__ = ["allow_many_files"]

_WANTED = 65536


def allow_many_files() -> None:
    """Raise the limit of open files, for thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
