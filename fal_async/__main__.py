"""The command line: ``python -m fal_async``."""

from __future__ import annotations

import sys

from fal_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
