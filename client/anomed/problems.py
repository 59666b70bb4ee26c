"""What can go wrong, as sentences with an exit status; and how the server's errors become such sentences."""

from enum import IntEnum
from typing import Any

import httpx


class Status(IntEnum):
    """Exit status of `anomed`."""

    SCORED = 0
    FAILED = 1
    ERROR = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class Problem(Exception):
    """A sentence for the person at the terminal. Ends the command."""

    status = Status.ERROR


class Unreachable(Problem):
    """The server could not be reached, or the connection broke."""

    status = Status.UNREACHABLE


class Refused(Problem):
    """The server answered with an error."""

    def __init__(self, sentence: str, *, code: int, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """True where the same request may succeed later: the server restarts, is busy, or holds the upload locked."""
        return self.code in (409, 423, 429) or self.code >= 500


def refusal(response: httpx.Response) -> Refused:
    """The error that a response of status 300 or above stands for."""
    return Refused(_sentence(response), code=response.status_code, retry_after=_seconds(response))


def _sentence(response: httpx.Response) -> str:
    details = _details(response)
    if response.status_code == httpx.codes.UNAUTHORIZED and response.request.headers.get("Authorization"):
        return "The server does not accept the token (any more). Sign in again: anomed login"
    if details:
        return "\n".join(details)
    if response.is_redirect:
        # Not followed: the token would travel to a host that nobody typed.
        return (
            f"The server sends elsewhere, to {response.headers.get('Location', '?')}. If that is right, sign in there."
        )
    return f"The server answered {response.status_code} {response.reason_phrase}."


def _details(response: httpx.Response) -> list[str]:
    """Reads {type, errors: [{code, detail, attr}]}; an empty list for any other body, such as a proxy's HTML."""
    try:
        errors = response.json()["errors"]
        return [_detail(error) for error in errors]
    except (ValueError, KeyError, TypeError):
        return []


def _detail(error: dict[str, Any]) -> str:
    attribute = error.get("attr")
    if attribute and attribute != "non_field_errors":
        return f"{attribute}: {error['detail']}"
    return str(error["detail"])


def _seconds(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):  # absent, or a date
        return None
