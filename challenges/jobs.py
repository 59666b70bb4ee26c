"""What is done with a stranger's file, in a process of its own: `python -m challenges.jobs` (see child.py).

Reads one request as JSON, limits itself, works, answers as JSON. It needs no settings, no database and no secret.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from challenges import samples, tables
from challenges.overlap import shared_rows
from challenges.schema import Schema, TableError

MEGABYTE: Final = 1 << 20


def read_table(
    *,
    source: str,
    suffix: str,
    target: str,
    patient: str,
    roles: dict[str, Any],
    task: Any,
    folder: str,
    sample_rows: int,
    seed: int,
) -> dict[str, Any]:
    """Profiles an uploaded file, writes `table.parquet` and, if there is a target, a generated `sample.parquet`.

    Where none can be generated the reason is among the notes: the organiser may have a sample of their own.
    """
    facts = tables.profile(Path(source), suffix, target or None, patient or None, roles, task or None)
    table = Path(folder, "table.parquet")
    sha256 = tables.write_canonical(Path(source), facts.schema, table, suffix)
    made: dict[str, Any] | None = None
    if facts.schema.target:
        try:
            columns = facts.schema.to_json()
            made = make_sample(table=str(table), schema=columns, rows=sample_rows, seed=seed, folder=folder)
        except TableError as error:
            facts = replace(facts, notes=(*facts.notes, str(error)))
    return {"profile": facts.to_json(), "sha256": sha256, "sample": made}


def make_sample(*, table: str, schema: dict[str, Any], rows: int, seed: int, folder: str) -> dict[str, Any]:
    """Writes a generated `sample.parquet` for a canonical table."""
    columns = Schema.from_json(schema)
    frame = samples.generate(tables.read(Path(table)), columns, rows, seed)
    sha256 = tables.write_frame(frame, public(columns), Path(folder, "sample.parquet"))
    return {"rows": len(frame), "sha256": sha256}


def read_sample(*, source: str, suffix: str, schema: dict[str, Any], table: str, folder: str) -> dict[str, Any]:
    """Writes the organiser's own sample as `sample.parquet`; `shared` of its rows are records of the private table."""
    columns = public(Schema.from_json(schema))
    path = Path(folder, "sample.parquet")
    sha256 = tables.write_canonical(Path(source), columns, path, suffix)
    sample = tables.read(path)
    return {"rows": len(sample), "sha256": sha256, "shared": shared_rows(sample, tables.read(Path(table)), columns)}


def public(schema: Schema) -> Schema:
    """The schema of a sample: without the patient id."""
    return Schema(schema.shared, schema.target)


JOBS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    job.__name__: job for job in (read_table, make_sample, read_sample)
}


def main() -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in (
        (resource.RLIMIT_AS, request["memory_mb"] * MEGABYTE),
        (resource.RLIMIT_CPU, request["seconds"]),
        (resource.RLIMIT_FSIZE, request["file_mb"] * MEGABYTE),
    ):
        resource.setrlimit(limit, (value, value))
    result: dict[str, Any]
    try:
        result = {"result": JOBS[request["job"]](**request["arguments"])}
    except TableError as error:
        result = {"refused": str(error)}
    except MemoryError:
        result = {"exhausted": "memory"}
    with answer:
        json.dump(result, answer)


if __name__ == "__main__":
    main()
