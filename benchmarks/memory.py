"""Memory of this process, current and peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["forget_peak", "memory", "peak_memory"]

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


def memory() -> float:
    """Return the resident memory in bytes, or its peak where the system has no current value."""
    return _from_proc("VmRSS:") or _peak()


def peak_memory() -> float:
    """Return the peak of the resident memory since the last `forget_peak`, in bytes."""
    return _from_proc("VmHWM:") or _peak()


def forget_peak() -> None:
    """Reset the peak, where the system supports it."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def _from_proc(name: str) -> float:
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
