"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in project["dependencies"] + extras["emulator"] + extras["cli"] + extras["images"]:
    if match := re.match(r"([\w.-]+)>=([\w.]+)", requirement):
        print(f"{match[1]}=={match[2]}")
