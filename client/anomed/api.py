"""The server's `/api/v1`: one connection that keeps its token to itself.

The token goes to the server that the user named and to no other origin: over https, or over plain http to this very
machine only.
"""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import httpx

from anomed import __version__
from anomed.problems import Problem, Refused, Unreachable, refusal

Json = dict[str, Any]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
PORTS = {"http": 80, "https": 443}
# Reading waits longest: the last PATCH of a large upload answers only when the server has put the file away.
TIMEOUT = httpx.Timeout(30, connect=10, read=120)


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of an address; raises Problem where there is no such thing."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Problem(f"This is not an address of a server: {url}") from error
    if parts.scheme not in PORTS or not host or parts.username is not None:
        raise Problem(f"This is not an address of a server: {url}. It looks like https://arena.example.org")
    return parts.scheme, host, port or PORTS[parts.scheme]


def server_address(typed: str) -> str:
    """The address of a server as a person types it, in one spelling: with a scheme, without a last slash."""
    typed = typed.strip()
    if "://" not in typed:
        scheme = "http" if urlsplit(f"//{typed}").hostname in LOCAL_HOSTS else "https"
        typed = f"{scheme}://{typed}"
    origin(typed)
    return typed.rstrip("/")


class Api:
    """Calls of one server. Raises Unreachable when it does not answer, Refused when it answers with an error."""

    def __init__(self, server: str, *, token: str = "", insecure: bool = False) -> None:
        self.server = server_address(server)
        self.origin = origin(self.server)
        scheme, host, _ = self.origin
        if scheme == "http" and host not in LOCAL_HOSTS and not insecure:
            raise Problem(
                f"{self.server} is not encrypted: everybody on the way could read your token. "
                "Use its https address, or say --insecure if you know this network."
            )
        headers = {"User-Agent": f"anomed/{__version__}", "Accept": "application/json", "Accept-Language": "en"}
        if token:
            headers["Authorization"] = f"Token {token}"
        # Over plain http a proxy from the environment would read the token; over https it only tunnels.
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=scheme == "https")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def url(self, address: str) -> str:
        """The full address of what the server names (upload, next page); raises Problem if it is another origin's."""
        full = urljoin(self.server + "/", address)
        if origin(full) != self.origin:
            raise Problem(
                f"The server names an address on another host ({full}). Your token stays here. "
                f"Tell the organisers, or sign in with that host if you trust it."
            )
        return full

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Json | None = None,
        content: Iterator[bytes] | None = None,
    ) -> httpx.Response:
        """One request of a full address; the answer's status is below 400 and no redirect (304 may pass)."""
        try:
            response = self._client.request(method, self.url(url), headers=headers, json=json, content=content)
        except httpx.TransportError as error:
            raise Unreachable(f"{self.server} cannot be reached: {str(error) or type(error).__name__}") from error
        if response.status_code >= 300 and response.status_code != httpx.codes.NOT_MODIFIED:
            raise refusal(response)
        return response

    def call(self, method: str, *path: str, json: Json | None = None) -> Any:
        """One call below /api/v1, the path given in pieces; the decoded answer, or None if there is no body."""
        response = self.request(method, self.path(*path), json=json)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise Refused(
                f"{self.server} does not answer like an AnoMed Arena. Is the address right?", code=response.status_code
            ) from error

    def get(self, *path: str) -> Any:
        """Reads one thing."""
        return self.call("GET", *path)

    def pages(self, *path: str) -> list[Json]:
        """All entries of a list, over all its pages."""
        page = self.get(*path)
        entries: list[Json] = []
        while isinstance(page, dict):
            entries += page["results"]
            if not page.get("next"):
                return entries
            page = self.request("GET", page["next"]).json()
        return list(page)

    def path(self, *pieces: str) -> str:
        """The full address of an API path; pieces are quoted, so that a typed id cannot leave its place."""
        return "/".join([self.server, "api/v1", *(quote(piece, safe="") for piece in pieces)])

    def stream(self, *path: str) -> Iterator[bytes]:
        """The bytes of a file that the server gives."""
        try:
            with self._client.stream("GET", self.path(*path), headers={"Accept": "*/*"}) as response:
                if response.status_code >= 300:
                    response.read()
                    raise refusal(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise Unreachable(f"{self.server} cannot be reached: {str(error) or type(error).__name__}") from error
