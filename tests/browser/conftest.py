"""Tests in Chromium, driven by selenium: ``nox -s web``. They are skipped if these are missing."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

if not (find_spec("selenium") and find_spec("hypercorn") and shutil.which("chromedriver")):
    collect_ignore_glob = ["test_*.py"]
