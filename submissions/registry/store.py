"""Asking the registry on this machine. It holds what strangers sent: sizes are bounded, addresses not followed."""

from collections.abc import Iterator
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from submissions.registry import access, conf
from submissions.registry.names import DIGEST

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MOST_TEXT = 4 << 20  # bytes of a manifest or a configuration: more no registry takes
_PIECE = 1 << 20
_PAGE = 500
_TIMEOUT = 60.0  # seconds until the next byte


class Unreachable(Exception):
    """The registry does not answer, or not as a registry does: try again later."""


class Missing(Exception):
    """The registry does not have what was asked for, or it is larger than it may be."""


def answers() -> bool:
    """Whether a registry is there, which asks for a token as it should."""
    try:
        with _ask("GET", "", "") as answer:
            return answer.status_code == 401
    except Unreachable:
        return False


def manifest(repository: str, digest: str) -> tuple[bytes, str]:
    """A manifest or an index as it was pushed, and its media type."""
    with _get(f"{repository}/manifests/{_checked(digest)}", access.of_ourselves(repository, "pull"), *_ALL) as answer:
        return b"".join(_pieces(answer, MOST_TEXT)), answer.headers.get("Content-Type", "").partition(";")[0]


def blob(repository: str, digest: str, size: int) -> Iterator[bytes]:
    """The bytes of a layer or configuration. Raises Missing unless it has exactly `size` of them."""
    arrived = 0
    with _get(f"{repository}/blobs/{_checked(digest)}", access.of_ourselves(repository, "pull")) as answer:
        for piece in _pieces(answer, size):
            arrived += len(piece)
            yield piece
    if arrived != size:
        raise Missing(digest)


def repositories() -> Iterator[str]:
    """The names of all repositories."""
    last = ""
    while True:
        page = _json("_catalog", access.of_the_catalogue(), n=_PAGE, last=last).get("repositories") or []
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1]


def tags(repository: str) -> Iterator[tuple[str, str]]:
    """The tags of a repository, each with the digest that it stands for now. There may be very many."""
    token = access.of_ourselves(repository, "pull")
    try:
        found = _json(f"{repository}/tags/list", token).get("tags") or []
    except Missing:
        return
    for tag in found:
        if digest := _digest(repository, tag, token):
            yield tag, digest


def delete(repository: str, digest: str) -> None:
    """Takes a manifest away, if it is there. Its layers go with the next collection of garbage."""
    answer = _ask("DELETE", f"{repository}/manifests/{_checked(digest)}", access.of_ourselves(repository, "delete"))
    answer.close()
    if answer.status_code not in (202, 404):
        raise Unreachable(f"status {answer.status_code}")


_ALL = (*MANIFEST_TYPES, *INDEX_TYPES)


def _digest(repository: str, tag: str, token: str) -> str:
    answer = _ask("HEAD", f"{repository}/manifests/{tag}", token, *_ALL)
    digest = answer.headers.get("Docker-Content-Digest", "")
    return digest if answer.status_code == 200 and DIGEST.fullmatch(digest) else ""


def _checked(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise Missing(digest)
    return digest


def _json(path: str, token: str, **query: Any) -> dict[str, Any]:
    with _get(path, token, **query) as answer:
        found = answer.json()
    assert isinstance(found, dict)
    return found


def _get(path: str, token: str, *types: str, **query: Any) -> requests.Response:
    answer = _ask("GET", path, token, *types, **query)
    if answer.status_code == 200:
        return answer
    answer.close()
    if answer.status_code == 404:
        raise Missing(path)
    raise Unreachable(f"status {answer.status_code}")


def _ask(method: str, path: str, token: str, *types: str, **query: Any) -> requests.Response:
    # No proxy and no .netrc of the environment, no unpacking on the way, and wherever a redirect points: not there.
    headers = {"Authorization": f"Bearer {token}", "Accept": ", ".join(types) or "*/*", "Accept-Encoding": "identity"}
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.request(
                method, f"{conf.url()}/v2/{path}", headers=headers, params=query, stream=True,
                allow_redirects=False, timeout=_TIMEOUT,
            )  # fmt: skip
        except requests.RequestException as error:
            raise Unreachable(str(error)) from error


def _pieces(answer: requests.Response, most: int) -> Iterator[bytes]:
    arrived = 0
    try:
        for piece in answer.raw.stream(_PIECE, decode_content=False):
            arrived += len(piece)
            if arrived > most:
                raise Missing("more bytes than were announced")
            yield piece
    except (requests.RequestException, OSError, HTTPError) as error:
        raise Unreachable(str(error)) from error
