"""How much a request may bring. Django writes a whole body to the disk before any middleware or view sees the request.

So it is asked one floor below, in the ASGI handler: where does the body go, who sends it, and is there room?
"""

import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from io import BytesIO
from typing import IO, Any

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db import close_old_connections
from django.urls import Resolver404, resolve
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from submissions.api.errors import TooLarge

MEGABYTE = 1 << 20
DEFAULT = 3 * MEGABYTE  # a little above DATA_UPLOAD_MAX_MEMORY_SIZE, for which views have answers of their own
PIECE = 64 * MEGABYTE  # of an upload by tus; our pages and our client send 16 MiB at a time
TABLE = 256 * MEGABYTE  # of an organiser's patients: the most that challenges.untrusted reads
FORM = MEGABYTE  # fields and boundaries of a form beside its file
ROOM = 2 * 10**9  # bytes of the disk that bodies never touch: the database and the workers need them

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Refusal:
    status: HTTPStatus
    code: str
    sentence: "str | Promise"


TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TooLarge.default_code, TooLarge.default_detail)
STRANGER = Refusal(
    HTTPStatus.UNAUTHORIZED, "not_authenticated", _("Sign in before you send a file. Nothing of it was kept.")
)
NO_ROOM = Refusal(
    HTTPStatus.INSUFFICIENT_STORAGE,
    "no_room",
    _("The server has no room for this file now. Its operator has been told; try again later."),
)


def most_bytes(method: str, path: str) -> int:
    """The largest body that somebody who is signed in may send to this address."""
    try:
        name = resolve(path).view_name
    except Resolver404:
        return DEFAULT
    larger = {
        ("PATCH", "api-upload"): PIECE,
        ("POST", "submit"): settings.SANDBOX["max_archive_bytes"] + FORM,
        ("POST", "admin:challenges_challenge_data"): TABLE + FORM,
    }
    return int(larger.get((method, name), DEFAULT))


class LimitedHandler(ASGIHandler):
    """Django's handler, which turns away bodies that are too large for their address or their sender.

    More than `DEFAULT` bytes are taken only if they were announced by a Content-Length, from a person with a valid
    session or token, while the disk has room for all large bodies that are under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._under_way = 0  # bytes of large bodies that were let in and are not dealt with yet

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        size = _announced(scope)
        if size <= DEFAULT:
            await self._take(scope, receive, send, most=DEFAULT)
        elif refusal := await self._refusal(scope, size):
            await _answer(refusal, scope, send)
        else:
            self._under_way += size
            try:
                await self._take(scope, receive, send, most=size)
            finally:
                self._under_way -= size

    async def read_body(self, receive: Receive) -> IO[bytes]:
        """The body, from some size on a nameless file among the private ones: tables of patients come this way."""
        most: int = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
        body = tempfile.SpooledTemporaryFile(max_size=most, dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115 -- Django closes it
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.close()
                raise RequestAborted
            body.write(message.get("body", b""))
            more = message.get("more_body", False)
        body.seek(0)
        return body

    async def _take(self, scope: dict[str, Any], receive: Receive, send: Send, *, most: int) -> None:
        """Lets Django answer, unless more than `most` bytes come; then Django sees a browser that has hung up."""
        arrived = 0

        async def counted() -> Mapping[str, Any]:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            return message if arrived <= most else {"type": "http.disconnect"}

        await super().__call__(scope, counted, send)
        if arrived > most:
            await _answer(TOO_LARGE, scope, send)

    async def _refusal(self, scope: dict[str, Any], size: int) -> Refusal | None:
        """Why a body of this announced size is not taken; None if it is."""
        if size > most_bytes(scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))):
            return TOO_LARGE
        # In a thread of its own: people with small requests must not wait for this one's look at the database.
        if not await sync_to_async(_is_signed_in, thread_sensitive=False)(_without_body(scope)):
            return STRANGER
        if shutil.disk_usage(settings.FILE_UPLOAD_TEMP_DIR).free < self._under_way + size + ROOM:
            log.error("no_room_for_body", size=size, under_way=self._under_way)
            return NO_ROOM
        return None


def _announced(scope: dict[str, Any]) -> int:
    """The Content-Length; 0 where there is none that is a number: such bodies get no more than the default."""
    value = dict(scope.get("headers", ())).get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 19 else 0


def _without_body(scope: dict[str, Any]) -> ASGIRequest:
    """The request's headers and cookies. Its query is left out: it may be no text, and nobody asks for it."""
    return ASGIRequest(scope | {"query_string": b""}, BytesIO())


def _is_signed_in(request: ASGIRequest) -> bool:
    """Whether the request brings the session or the token of an active account."""
    sessions = import_module(settings.SESSION_ENGINE)
    request.session = sessions.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    try:
        return get_user(request).is_authenticated or TokenAuthentication().authenticate(request) is not None
    except AuthenticationFailed:
        return False
    finally:
        close_old_connections()  # this thread has no end of a request that would do it


async def _answer(refusal: Refusal, scope: dict[str, Any], send: Send) -> None:
    """A plain sentence, for /api/ in the API's form. No middleware has seen the request: the language is asked here."""
    with translation.override(translation.get_language_from_request(_without_body(scope))):
        text = str(refusal.sentence)
    kind = b"text/plain; charset=utf-8"
    if scope["path"].startswith("/api/"):
        fault = "server_error" if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "client_error"
        text = json.dumps({"type": fault, "errors": [{"code": refusal.code, "detail": text, "attr": None}]})
        kind = b"application/json"
    body = text.encode()
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(refusal.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
