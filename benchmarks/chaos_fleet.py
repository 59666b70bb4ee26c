"""The same with PostgreSQL, which is killed as well, and three hosts. See `chaos`."""

from typing import Any

from benchmarks import chaos
from benchmarks.common import Verdict
from tests.databases import Postgres

HOSTS = 3


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    return chaos.run(hosts=HOSTS, database=Postgres())
