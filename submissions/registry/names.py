"""How images are called here: CHALLENGE/TEAM/NAME:KIND. CHALLENGE and TEAM follow from the team, NAME is free."""

import re

from django.utils.text import slugify

from submissions.models import Team
from submissions.registry import conf

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST = 255  # characters of a whole name, as registries have it
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"({_PART}/{_PART}-([0-9]{{1,18}}))/({_PART})")


def prefix(team: Team) -> str:
    """CHALLENGE/TEAM of a team: its number makes it the only one, whatever others are called."""
    return f"{_part(team.challenge.slug) or 'challenge'}/{_part(team.name) or 'team'}-{team.pk}"


def address(team: Team) -> str:
    """What a member of the team writes before the name of an image."""
    return f"{conf.conf().address}/{prefix(team)}"


def team_of(repository: str) -> Team | None:
    """The team that a repository belongs to; None for every name that is not exactly one of a team's."""
    parts = _NAME.fullmatch(repository) if len(repository) <= _LONGEST else None
    if parts is None:
        return None
    team = Team.objects.select_related("challenge").filter(pk=int(parts[2])).first()
    return team if team is not None and prefix(team) == parts[1] else None


def last(repository: str) -> str:
    """NAME alone."""
    return repository.rpartition("/")[2]


def _part(text: str) -> str:
    return slugify(text.replace("_", "-"))[:60].strip("-_")
