"""Calls a job of jobs.py in a short-lived child: what breaks on a stranger's file, or explodes, breaks there."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from django.utils.translation import gettext as _

from challenges.tables import TableError

_ANSWER_BYTES: Final = 16 << 20  # a profile of 500 columns with 50 categories each takes 2 MB
_FILE_MB: Final = 2048


def call(job: str, *, seconds: int = 120, memory_mb: int = 4096, **arguments: Any) -> dict[str, Any]:
    """The answer of `jobs.<job>(**arguments)`, plain data both ways.

    Raises TableError with a plain sentence if the job refuses the file, takes too long, or dies over it.
    """
    request = {"job": job, "seconds": seconds, "memory_mb": memory_mb, "file_mb": _FILE_MB, "arguments": arguments}
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "challenges.jobs"],
                input=json.dumps(request).encode(),
                stdout=answer,
                stderr=subprocess.DEVNULL,  # a traceback may quote patients' values
                env=_environment(),
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TableError(_("The table takes too long to read. Give a smaller one.")) from error
        return _result(answer, ended.returncode)


def _environment() -> dict[str, str]:
    """Nothing of ours but what Python needs: no secret of the site, one thread per library."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return kept | threads | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def _result(answer: Any, code: int) -> dict[str, Any]:
    answer.seek(0)
    text = answer.read(_ANSWER_BYTES + 1)
    if code != 0 or len(text) > _ANSWER_BYTES:
        raise TableError(_("The table cannot be read: the program that reads it broke down over it."))
    said: dict[str, Any] = json.loads(text)
    if "refused" in said:
        raise TableError(said["refused"])
    if "exhausted" in said:
        raise TableError(_("The table takes too much memory to read. Give a smaller one."))
    result: dict[str, Any] = said["result"]
    return result
