"""Entering an image: make its archive, announce it, send it; or go on where a broken upload stopped."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from anomed import archives, config, images, uploads
from anomed.api import Api, Json
from anomed.archives import Archive
from anomed.problems import Problem, Refused, Unreachable
from anomed.words import Voice, megabytes

PATH_ENDINGS = (".tar", ".tar.gz", ".tgz", ".oci")
GONE = (404, 410)


@dataclass(frozen=True)
class Entry:
    """What a participant enters: an image's name or an archive's path, as which kind, with which words."""

    challenge: str
    kind: str
    source: str
    name: str
    note: str
    role: str
    full: bool
    epsilon: float | None = None  # what a defense declares of differential privacy
    delta: float | None = None
    contract: str = ""


def submit(api: Api, entry: Entry, voice: Voice, *, chunk: int) -> str:
    """Announces and sends; returns the submission's id."""
    _check_challenge(api, entry)
    source = _pinned(entry.source)
    base_layers = () if entry.full else _base_layers(api)
    with _archive(source, base_layers, voice, full=entry.full) as archive:
        size = _size(archive.file)
        body: Json = {"kind": entry.kind, "note": entry.note, "file_name": _file_name(entry.source), "size": size}
        body |= {"name": entry.name} if entry.name else {}
        body |= {"role": entry.role} if entry.role else {}
        body |= {"contract": entry.contract} if entry.contract else {}
        body |= {"declared_epsilon": entry.epsilon} if entry.epsilon is not None else {}
        body |= {"declared_delta": entry.delta} if entry.delta is not None else {}
        sha256 = _sha256(archive.file)
        submission = api.call("POST", "challenges", entry.challenge, "submissions", json=body)
        note = config.Note(str(submission["id"]), api.server, source, entry.full, base_layers, size, sha256)
        config.keep_note(note)
        if voice.as_json:
            voice.record(submission)
        voice.say(f"Submission {note.id}: sending {megabytes(size)}{_spared(archive)}.")
        _send(api, note, submission, archive.file, voice, chunk)
    return note.id


def resume(api: Api, note: config.Note, voice: Voice, *, chunk: int) -> None:
    """Makes the same archive again and sends what the server lacks of it."""
    submission = api.get("submissions", note.id)
    if submission["state"] != "uploading":
        config.drop_note(note.id)
        voice.say(f"Submission {note.id} is complete already, it is {submission['state']}.")
        return
    with _archive(note.source, note.base_layers, voice, full=note.full) as archive:
        if (_size(archive.file), _sha256(archive.file)) != (note.size, note.sha256):
            raise Problem(f"{note.source} is not what it was when the upload began. Submit it anew.")
        voice.say(f"Submission {note.id}: going on.")
        _send(api, note, submission, archive.file, voice, chunk)


def _check_challenge(api: Api, entry: Entry) -> None:
    """Before minutes of saving and sending: is there such a challenge, and does the person take part?"""
    challenge = api.get("challenges", entry.challenge)
    if not entry.role and challenge.get("joined") is False:
        raise Problem(
            f"You have not joined {entry.challenge} yet. Read its rules, then: "
            f"anomed join {entry.challenge} --team NAME --accept-rules"
        )


def _pinned(source: str) -> str:
    """The source so that it means the same later: an absolute path, or the id of the image that has the name now."""
    path = Path(source).expanduser()
    if path.is_file():
        return str(path.resolve())
    if source.endswith(PATH_ENDINGS) or source.startswith(("/", ".", "~")):
        raise Problem(f"There is no file {source}.")
    return images.find(source).id


def _base_layers(api: Api) -> tuple[str, ...]:
    try:
        return tuple(sorted({str(layer) for image in api.pages("base-images") for layer in image["layers"]}))
    except Refused as problem:
        if problem.code in GONE:  # a server that takes only whole archives
            return ()
        raise


@contextmanager
def _archive(source: str, base_layers: tuple[str, ...], voice: Voice, *, full: bool) -> Iterator[Archive]:
    """The bytes to send; the same source and base layers always give the same bytes."""
    path = Path(source)
    if path.is_absolute():
        with path.open("rb") as file:
            archive = Archive(file, 0) if full else archives.thin_file(file, base_layers)
            with archive.file:
                yield archive
        return
    image = images.find(source)
    with (
        voice.transfer("Reading the image from Docker", image.size) as seen,
        images.saved(image) as stream,
    ):
        archive = archives.thin_stream(cast(IO[bytes], _Counted(stream, seen)), base_layers)
    with archive.file:
        yield archive


class _Counted:
    """A stream that tells how many bytes went through it."""

    def __init__(self, stream: IO[bytes], seen: Callable[[int], None]) -> None:
        self._stream, self._seen, self._done = stream, seen, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._done += len(piece)
        self._seen(self._done)
        return piece


def _send(api: Api, note: config.Note, submission: Json, file: IO[bytes], voice: Voice, chunk: int) -> None:
    upload = submission.get("upload")
    if not upload:
        raise Problem(f"The server names no place for the archive of submission {note.id}.")
    try:
        with voice.transfer("Uploading", note.size) as seen:
            uploads.send(api, api.url(upload["url"]), file, note.size, seen=seen, chunk=chunk)
    except KeyboardInterrupt:
        voice.complain(f"Stopped. Go on with: anomed submit --resume {note.id}")
        raise
    except Unreachable as problem:
        raise Unreachable(f"{problem}\nGo on with: anomed submit --resume {note.id}") from problem
    except Refused as problem:
        # The answer to the last chunk may have been lost after the server had taken the upload over.
        if problem.code not in GONE or api.get("submissions", note.id)["state"] == "uploading":
            raise
    config.drop_note(note.id)
    voice.say("The archive is on the server.")


def _spared(archive: Archive) -> str:
    return f" ({megabytes(archive.left_out)} of base layers are on the server already)" if archive.left_out else ""


def _file_name(source: str) -> str:
    path = Path(source).expanduser()
    return path.name if path.is_file() else f"{_own_name(source)}.tar"


def _own_name(image: str) -> str:
    """What the boards call an entry without a name: the last part of the image's name, with its tag unless latest."""
    return image.split("@")[0].rpartition("/")[2].removesuffix(":latest").replace(":", "-")


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(cast("hashlib._BytesIOLike", file), "sha256").hexdigest()
