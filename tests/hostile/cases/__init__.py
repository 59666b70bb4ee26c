"""All cases, group by group."""

from tests.hostile.cases import kernel, network
from tests.hostile.model import Case

CASES: list[Case] = [*network.CASES, *kernel.CASES]

assert len({case.id for case in CASES}) == len(CASES), "two cases have one name"
