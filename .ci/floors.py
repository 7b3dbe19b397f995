"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
checked = ("emulator", "cli", "images", "webhooks", "proxy", "postgres", "otel")
for requirement in project["dependencies"] + [line for name in checked for line in extras[name]]:
    if match := re.match(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", requirement):
        print(f"{match[1]}=={match[2]}")
