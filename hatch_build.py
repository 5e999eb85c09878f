"""Writes into a wheel which commit it was built from; `tensorfleet --version` shows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """The commit comes from TENSORFLEET_COMMIT, or from git where this is a checkout; else nothing is written."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not (commit := os.environ.get("TENSORFLEET_COMMIT") or self._head()):
            return
        self._folder = tempfile.TemporaryDirectory()
        written = Path(self._folder.name, "COMMIT")
        written.write_text(f"{commit}\n")
        build_data["force_include"][str(written)] = "consumer/COMMIT"

    def _head(self) -> str:
        command = ["git", "-C", self.root, "rev-parse", "--short=12", "HEAD"]
        if not Path(self.root, ".git").exists():
            return ""
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip()
