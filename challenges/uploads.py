"""Files that an organiser gives: staged in a private folder, read in a child, ready to be stored by an action."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from django.conf import settings
from django.utils.translation import gettext as _

from challenges import child
from challenges.models import FILE_NAME_LENGTH, Dataset
from challenges.samples import DEFAULT_ROWS
from challenges.tables import Profile, Schema, TableError
from challenges.untrusted import ORGANISER_CAPS

SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet", ".pq")
# A sample is dealt like a table; with fewer records its parts would be too small to rehearse on.
LEAST_SAMPLE_ROWS: Final = 200
_CHUNK: Final = 1 << 20


class Readable(Protocol):
    """Bytes to be read in pieces: an open file, an upload."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class StagedTable:
    """A table that could be read: the file as it came, its canonical form, and a sample (None without a target)."""

    file_name: str
    source: Path
    table: Path
    sha256: str
    profile: Profile
    sample: "StagedSample | None"


@dataclass(frozen=True)
class StagedSample:
    """A canonical sample, and whose it is."""

    path: Path
    rows: int
    sha256: str
    origin: Dataset.Origin


@contextmanager
def staged_table(
    file: Readable,
    file_name: str,
    *,
    target: str = "",
    patient: str = "",
    roles: Mapping[str, str] | None = None,
    task: str = "",
) -> Iterator[StagedTable]:
    """Reads an uploaded table; the files last as long as the context. Raises TableError.

    Without a target there is no sample yet. `task` is binary, multiclass or regression; "" guesses it.
    """
    with _folder() as folder:
        source, suffix = _keep(file, file_name, folder)
        answer = child.call(
            "read_table",
            source=str(source),
            suffix=suffix,
            target=target,
            patient=patient,
            roles=dict(roles or {}),
            task=task,
            folder=str(folder),
            sample_rows=DEFAULT_ROWS,
            seed=secrets.randbits(32),
        )
        sample = _sample(folder, answer["sample"], Dataset.Origin.GENERATED) if answer["sample"] else None
        profile = Profile.from_json(answer["profile"])
        yield StagedTable(_short(file_name), source, folder / "table.parquet", answer["sha256"], profile, sample)


@contextmanager
def generated_sample(table: Path, schema: Schema) -> Iterator[StagedSample]:
    """A new sample for a canonical table, from independent marginals. Raises TableError."""
    with _folder() as folder:
        answer = child.call(
            "make_sample",
            table=str(table),
            schema=schema.to_json(),
            rows=DEFAULT_ROWS,
            seed=secrets.randbits(32),
            folder=str(folder),
        )
        yield _sample(folder, answer, Dataset.Origin.GENERATED)


@contextmanager
def own_sample(file: Readable, file_name: str, *, table: Path, schema: Schema) -> Iterator[StagedSample]:
    """The organiser's own sample; it must fit the schema and hold no record of the table. Raises TableError."""
    with _folder() as folder:
        source, suffix = _keep(file, file_name, folder)
        answer: dict[str, Any] = child.call(
            "read_sample",
            source=str(source),
            suffix=suffix,
            schema=schema.to_json(),
            table=str(table),
            folder=str(folder),
        )
        if answer["shared"]:
            raise TableError(
                _(
                    "%(number)s records of this sample are records of the private table. The sample is public: "
                    "use made-up records, or let the platform generate them."
                )
                % {"number": answer["shared"]}
            )
        if answer["rows"] < LEAST_SAMPLE_ROWS:
            raise TableError(
                _("The sample has %(rows)s records; at least %(least)s are needed to rehearse an entry.")
                % {"rows": answer["rows"], "least": LEAST_SAMPLE_ROWS}
            )
        yield _sample(folder, answer, Dataset.Origin.OWN)


def _sample(folder: Path, answer: dict[str, Any], origin: Dataset.Origin) -> StagedSample:
    return StagedSample(folder / "sample.parquet", answer["rows"], answer["sha256"], origin)


def _short(file_name: str) -> str:
    """The name of the file alone, cut to what the database holds; the suffix stays, it says how to read the file."""
    name = Path(file_name)
    return name.stem[: FILE_NAME_LENGTH - len(name.suffix)] + name.suffix


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="table-", dir=settings.FILE_UPLOAD_TEMP_DIR) as name:
        yield Path(name)


def _keep(file: Readable, file_name: str, folder: Path) -> tuple[Path, str]:
    """Writes the upload into the folder under a name of ours; returns its path and suffix."""
    suffix = Path(file_name).suffix.lower()
    if suffix not in SUFFIXES:
        raise TableError(_("Only CSV and Parquet files can be read. Save the table in one of these formats."))
    path = folder / f"source{suffix}"
    size = 0
    with path.open("wb") as kept:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > ORGANISER_CAPS.size:
                raise TableError(
                    _("The file is larger than %(size)s MB, the most that is read.")
                    % {"size": ORGANISER_CAPS.size >> 20}
                )
            kept.write(chunk)
    return path, suffix
