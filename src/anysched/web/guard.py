"""Security: each request is authorized, and each response tells browsers what they may do with it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ACTION_HEADER", "Authorize", "Guard", "check_same_origin"]

Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]
"""Returns whether a request may be answered."""

ACTION_HEADER = "x-anysched-action"
"""A header that the page sends with each action. A form cannot send it, and a script of another origin may not."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Wraps the application.

    Args:
        app: The application.
        authorize: Called for each request.
    """

    def __init__(self, app: ASGIApp, authorize: Authorize | None) -> None:
        self._app = app
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = await self._refusal(Request(scope, receive)) if scope["type"] == "http" else None
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await (refusal or self._app)(scope, receive, send_with_headers)

    async def _refusal(self, request: Request) -> Response | None:
        if self._authorize is None:
            return None
        try:
            answer: Any = self._authorize(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except HTTPException as refusal:
            detail = cast("object", refusal.detail)  # FastAPI's may be anything that can be represented as JSON
            respond = PlainTextResponse if isinstance(detail, str) else JSONResponse
            return respond(detail, refusal.status_code, refusal.headers)
        # Any value other than `True` refuses the request, including the `None` of a forgotten `return`.
        return None if answer is True else PlainTextResponse("not allowed", 403)


def check_same_origin(request: Request) -> None:
    """Check that a request does not come from a page of another origin.

    Raises:
        HTTPException: if it may.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        same = site == "same-origin"
    else:  # an old browser, or a program
        same = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not same or request.headers.get(ACTION_HEADER) != "1":
        raise HTTPException(403, "actions are accepted only from this page")
