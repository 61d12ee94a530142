"""Both backends in virtual time, for all tests in this directory."""

from __future__ import annotations

from typing import Any

import pytest

from anysched.testing import VirtualClock


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    options = {"debug": True} if request.param == "asyncio" else {}
    return VirtualClock().backend(request.param, **options)
