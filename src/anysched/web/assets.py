"""The files of the page, which are read only once."""

from __future__ import annotations

from hashlib import blake2b
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["page", "static"]

MEDIA_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}

_FILES = {
    entry.name: entry.read_bytes()
    for entry in (files(__name__.rpartition(".")[0]) / "static").iterdir()
    if entry.name.rpartition(".")[2] in MEDIA_TYPES
}
_TAGS = {name: f'"{blake2b(content, digest_size=9).hexdigest()}"' for name, content in _FILES.items()}


async def page(request: Request) -> Response:
    """Return the page."""
    return _respond(request, "dashboard.html")


async def static(request: Request) -> Response:
    """Return a file that the page loads."""
    return _respond(request, request.path_params["name"])


def _respond(request: Request, name: str) -> Response:
    content = _FILES.get(name)
    if content is None:
        return Response("file not found", 404, media_type="text/plain")
    headers = {"etag": _TAGS[name], "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == _TAGS[name]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[name.rpartition(".")[2]])
