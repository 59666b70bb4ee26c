"""All cases, group by group."""

from tests.hostile.cases import archives, channels, files, kernel, network, outputs, processes, resources, tables, web
from tests.hostile.model import Case

CASES: list[Case] = [
    case
    for group in (network, kernel, files, resources, processes, outputs, tables, web, archives, channels)
    for case in group.CASES
]

assert len({case.id for case in CASES}) == len(CASES), "two cases have one name"
