"""Both backends in virtual time, and every store, for the tests in this directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from durable_support import Program

from anysched.durable import MemoryStore, SQLiteStore, Store
from anysched.testing import VirtualClock


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    options = {"debug": True} if request.param == "asyncio" else {}
    return VirtualClock().backend(request.param, **options)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "store.db", synchronous="normal")


@pytest.fixture
def program(store: Store) -> Program:
    return Program(store)
