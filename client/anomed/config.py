"""What stays on this machine between two calls: servers with their tokens, and notes of unfinished uploads.

All of it lives in the user's config folder, readable by the user alone. `ANOMED_SERVER` and `ANOMED_TOKEN` override it.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from anomed.problems import Problem


@dataclass(frozen=True)
class Account:
    """How to reach one server."""

    server: str
    token: str
    insecure: bool = False


@dataclass(frozen=True)
class Note:
    """What an upload was made from: enough to make the same bytes again, and to see that they are the same."""

    id: str
    server: str
    source: str
    full: bool
    base_layers: tuple[str, ...]
    size: int
    sha256: str


def folder() -> Path:
    """The user's config folder for this program; it may not exist yet."""
    return Path(typer.get_app_dir("anomed"))


def default_server() -> str:
    """The server of the latest `anomed login`, or ""."""
    return str(_read(_accounts_file()).get("server", ""))


def account(server: str) -> Account:
    """The stored account of this server; its token is "" when there is none. Another server's token is never given."""
    stored = _read(_accounts_file()).get("servers", {}).get(server, {})
    return Account(server, str(stored.get("token", "")), bool(stored.get("insecure", False)))


def remember(kept: Account) -> None:
    """Stores the account and makes its server the default one."""
    content = _read(_accounts_file())
    servers = content.get("servers", {}) | {kept.server: {"token": kept.token, "insecure": kept.insecure}}
    _write(_accounts_file(), {"server": kept.server, "servers": servers})


def forget(server: str) -> None:
    """Removes the token of this server; the server stays the default, so that the next login need not name it."""
    content = _read(_accounts_file())
    servers = {name: value for name, value in content.get("servers", {}).items() if name != server}
    _write(_accounts_file(), content | {"servers": servers})


def keep_note(note: Note) -> None:
    """Stores what an upload needs to be resumed."""
    _write(_note_file(note.id), asdict(note))


def note(id: str) -> Note:
    """Raises Problem if this machine began no upload of that name."""
    content = _read(_note_file(id))
    try:
        return Note(**content | {"base_layers": tuple(content["base_layers"])})
    except (KeyError, TypeError) as error:
        raise Problem(
            f"This machine has no unfinished upload {id}. Resume where it was begun, or submit anew."
        ) from error


def drop_note(id: str) -> None:
    """Forgets an upload that is complete or gone."""
    _note_file(id).unlink(missing_ok=True)


def _accounts_file() -> Path:
    return folder() / "config.json"


def _note_file(id: str) -> Path:
    return folder() / "uploads" / f"{quote(id, safe='')}.json"  # the id comes from the server: no path in it


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Problem(f"{path} is not readable any more. Remove it and sign in again: anomed login") from error
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file in one step; at no moment can another user read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
