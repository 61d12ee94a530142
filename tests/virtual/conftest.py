"""Both backends in virtual time, for all tests in this directory."""

from __future__ import annotations

import pytest

from anysched.testing import VirtualClock


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    options = {"debug": True} if request.param == "asyncio" else {}
    return VirtualClock().backend(request.param, **options)
