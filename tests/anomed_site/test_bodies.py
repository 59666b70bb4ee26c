"""Large bodies, sent to the ASGI application that uvicorn serves: they reach the disk only where they may."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asgiref.testing import ApplicationCommunicator
from django.conf import settings as site
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken

from anomed_site import bodies
from anomed_site.asgi import application
from anomed_site.models import User
from challenges.models import Challenge
from submissions import actions
from submissions.models import Team

pytestmark = pytest.mark.django_db(transaction=True)

PIECE = b"\0" * bodies.MEGABYTE
UPLOAD = (
    "/api/v1/uploads/0b5f2a36-5f6e-4d0c-9a3b-6a1d1b6f8f11"  # of nobody; the same in each process of a parallel test run
)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


def send(method: str, path: str, pieces: Sequence[bytes], *, announced: int | None = None, **headers: str) -> Answer:
    """Sends a body piece by piece; `announced` is its Content-Length, if it has one."""
    head = {"host": "localhost", **headers}
    if announced is not None:
        head["content-length"] = str(announced)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in head.items()],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip

    async def talk() -> Answer:
        communicator = ApplicationCommunicator(application, scope)
        for piece in pieces:
            await communicator.send_input({"type": "http.request", "body": piece, "more_body": True})
        await communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
        start = await communicator.receive_output(timeout=20)
        body = await communicator.receive_output(timeout=20)
        await communicator.wait(timeout=20)
        said = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], said, body.get("body", b"").decode())

    return asyncio.run(talk())


def cookie(user: User) -> str:
    browser = Client()
    browser.force_login(user)
    return f"{site.SESSION_COOKIE_NAME}={browser.cookies[site.SESSION_COOKIE_NAME].value}"


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in which bodies became files."""
    folders: list[Path] = []
    make = tempfile.TemporaryFile

    def watched(*args: Any, **kwargs: Any) -> Any:
        folders.append(Path(kwargs.get("dir") or tempfile.gettempdir()))
        return make(*args, **kwargs)

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    return folders


def test_small_requests_are_answered_as_always(db: None) -> None:
    assert send("GET", "/healthz", []).status == 200
    assert send("POST", "/accounts/login/", [b"login=a"], announced=7).status == 403


@pytest.mark.parametrize("path", ["/", "/nowhere", "/accounts/login/", "/api/v1/token", UPLOAD])
def test_of_an_endless_body_no_more_than_the_default_reaches_the_disk(path: str, spooled: list[Path]) -> None:
    answer = send("POST", path, [PIECE] * 5)
    assert answer.status == 413
    assert "larger than this server takes" in answer.text
    assert set(spooled) <= {Path(site.FILE_UPLOAD_TEMP_DIR)}


def test_what_is_announced_as_too_large_is_not_even_read(spooled: list[Path]) -> None:
    answer = send("POST", "/accounts/login/", [PIECE] * 5, announced=5 * len(PIECE))
    assert (answer.status, answer.headers["content-type"]) == (413, "text/plain; charset=utf-8")
    assert spooled == []


def test_a_short_announcement_does_not_help(spooled: list[Path]) -> None:
    assert send("POST", "/accounts/login/", [PIECE] * 5, announced=10).status == 413


def test_programs_get_the_refusal_as_json_and_germans_in_german(spooled: list[Path]) -> None:
    answer = send("POST", "/api/v1/token", [], announced=10**9, accept_language="de")
    told = json.loads(answer.text)
    assert (told["type"], told["errors"][0]["code"], told["errors"][0]["attr"]) == ("client_error", "too_large", None)
    assert "größer" in told["errors"][0]["detail"]


@pytest.mark.parametrize("header", [{}, {"cookie": "sessionid=invented"}, {"authorization": "Token invented"}])
def test_strangers_send_no_large_body_anywhere(clinic: Challenge, spooled: list[Path], header: dict[str, str]) -> None:
    data = reverse("admin:challenges_challenge_data", args=[clinic.pk])
    for method, path in [("PATCH", UPLOAD), ("POST", reverse("submit", args=[clinic.slug])), ("POST", data)]:
        assert send(method, path, [PIECE] * 5, announced=5 * len(PIECE), **header).status == 401
    assert spooled == []


def test_a_piece_of_an_upload_may_be_large_and_lies_among_the_private_files(
    clinic: Challenge, teams: dict[str, Team], ada: User, spooled: list[Path]
) -> None:
    entry = actions.enter(challenge=clinic, by=ada, kind="attack", file_name="a.tar", size=10 * len(PIECE))
    _row, token = AuthToken.objects.create(ada)
    headers = {
        "authorization": f"Token {token}", "content_type": "application/offset+octet-stream", "upload_offset": "0",
    }  # fmt: skip
    path = reverse("api-upload", args=[entry.upload.pk])
    assert send("PATCH", path, [PIECE] * 5, announced=5 * len(PIECE), **headers).status == 204
    assert entry.upload.path.stat().st_size == 5 * len(PIECE)
    assert spooled == [Path(site.FILE_UPLOAD_TEMP_DIR)]
    assert send("PATCH", path, [PIECE] * 5, **headers).status == 413  # no length, no large body
    assert send("PATCH", path, [], announced=bodies.PIECE + 1, **headers).status == 413


def test_the_plain_form_takes_an_archive_of_the_size_that_the_server_takes(
    clinic: Challenge, teams: dict[str, Team], ada: User, settings: Any
) -> None:
    settings.SANDBOX = {**settings.SANDBOX, "max_archive_bytes": 4 * len(PIECE)}
    path = reverse("submit", args=[clinic.slug])
    headers = {"cookie": cookie(ada), "content_type": "multipart/form-data; boundary=x"}
    taken = send("POST", path, [PIECE] * 4, announced=4 * len(PIECE), **headers)
    assert "The form was too old" in taken.text  # it came as far as the check of its token
    assert send("POST", path, [], announced=6 * len(PIECE), **headers).status == 413


def test_an_organiser_sends_a_table_of_patients(clinic: Challenge, olga: User) -> None:
    path = reverse("admin:challenges_challenge_data", args=[clinic.pk])
    headers = {"cookie": cookie(olga), "content_type": "multipart/form-data; boundary=x"}
    assert send("POST", path, [PIECE] * 5, announced=5 * len(PIECE), **headers).status == 403  # the form's token
    assert send("POST", path, [], announced=bodies.TABLE + 2 * bodies.FORM, **headers).status == 413


def test_nobody_fills_the_last_of_the_disk(clinic: Challenge, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(site.FILE_UPLOAD_TEMP_DIR)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=bodies.ROOM))
    path = reverse("submit", args=[clinic.slug])
    answer = send("POST", path, [], announced=5 * len(PIECE), cookie=cookie(ada))
    assert (answer.status, "no room" in answer.text) == (507, True)
