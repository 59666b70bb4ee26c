"""A PostgreSQL of its own for a test or a benchmark, thrown away afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.arena import free_port


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, which are on nobody's PATH; None if PostgreSQL is not installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, as DATABASE_URL has it. Root needs the system's user `postgres` for it."""
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed.")
    folder = Path(tempfile.mkdtemp(prefix="anomed-postgres-"))
    owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = folder / "data"
    port = free_port()

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with (folder / "said").open("ab") as said:
            done = subprocess.run(command, cwd=folder, stdout=said, stderr=said, **who)  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError((folder / "said").read_text()[-2000:])

    try:
        call("initdb", f"--pgdata={data}", "--username=anomed", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "start", f"--pgdata={data}", "--wait", f"--log={folder}/log", f"--options={options}")
        try:
            yield f"postgres://anomed@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "stop", f"--pgdata={data}", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
