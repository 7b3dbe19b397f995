"""What the operating system allows a process."""

from __future__ import annotations

import resource

__all__ = ["allow_many_files"]

_WANTED = 65536


def allow_many_files() -> None:
    """Thousands of connections need as many file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
