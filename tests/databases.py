"""A PostgreSQL of its own for a test or a benchmark, thrown away afterwards."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.arena import free_port


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, which are on nobody's PATH; None if PostgreSQL is not installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))


@dataclass
class Postgres:
    """A server with an empty database at `url`. Use as a context manager."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="anomed-postgres-")))
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """Its address, as DATABASE_URL has it."""
        return f"postgres://anomed@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def __enter__(self) -> "Postgres":
        owner = _owner()
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        try:
            self._call("initdb", f"--pgdata={self._data}", "--username=anomed", "--auth=trust", "--no-sync")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._call("pg_ctl", "stop", f"--pgdata={self._data}", "--wait", "--mode=immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        log = f"--log={self.folder}/log"
        self._call("pg_ctl", "start", f"--pgdata={self._data}", "--wait", log, f"--options={options}")

    def kill(self) -> None:
        """SIGKILL to the server, whose connections then end as well."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def _call(self, program: str, *arguments: str) -> None:
        programs, owner = postgres_programs(), _owner()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed.")
        who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(programs / program), *arguments]
        with (self.folder / "said").open("ab") as said:
            done = subprocess.run(command, cwd=self.folder, stdout=said, stderr=said, **who)  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError((self.folder / "said").read_text()[-2000:])


def _owner() -> pwd.struct_passwd:
    """Who the server runs as: it refuses to be root's. Root needs the system's user `postgres` for it."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, as DATABASE_URL has it."""
    with Postgres() as server:
        yield server.url
