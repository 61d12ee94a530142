"""Tests with the packages of the dependency group ``integrations``. They are skipped if these are missing."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

PACKAGES = (
    "aiocron",
    "aiohttp",
    "aiojobs",
    "apscheduler",
    "cronsim",
    "discord",
    "fastapi",
    "fastapi_utils",
    "httpx2",
    "hypercorn",
    "opentelemetry",
    "prometheus_client",
    "pydis_core",
    "quart_trio",
    "schedule",
    "sentry_sdk",
    "stamina",
)

if all(map(find_spec, PACKAGES)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of theirs, on import
        import discord.ext.commands  # noqa: F401
else:
    # `nox -s integrations` runs only this directory: pytest then fails, because there are no tests.
    collect_ignore_glob = ["test_*.py"]
