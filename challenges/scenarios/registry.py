"""All games that challenges can be made of, by slug."""

from challenges.scenarios.base import Scenario
from challenges.scenarios.model_membership import ModelMembership

SCENARIOS: dict[str, Scenario] = {scenario.slug: scenario for scenario in (ModelMembership(),)}


def get(slug: str) -> Scenario:
    """The scenario of this slug. Raises LookupError if there is none."""
    try:
        return SCENARIOS[slug]
    except KeyError:
        raise LookupError(f"There is no scenario “{slug}”.") from None
