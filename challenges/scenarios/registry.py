"""All games that challenges can be made of, by slug."""

from challenges.findings import SENTENCES
from challenges.scenarios.base import Scenario
from challenges.scenarios.model_membership import ModelMembership
from challenges.scenarios.signal_linkage import SignalLinkage
from challenges.scenarios.synthetic_membership import SyntheticMembership
from challenges.scenarios.table_reconstruction import TableReconstruction

_ALL: tuple[Scenario, ...] = (ModelMembership(), SyntheticMembership(), TableReconstruction(), SignalLinkage())
SCENARIOS: dict[str, Scenario] = {scenario.slug: scenario for scenario in _ALL}

for _scenario in SCENARIOS.values():
    SENTENCES.update(_scenario.sentences)


def get(slug: str) -> Scenario:
    """The scenario of this slug. Raises LookupError if there is none."""
    try:
        return SCENARIOS[slug]
    except KeyError:
        raise LookupError(f"There is no scenario “{slug}”.") from None
