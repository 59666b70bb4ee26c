"""Who may do what in the registry: people push to and pull from their own team's repositories, and nothing else."""

import secrets
import shutil
import time
from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from django.conf import settings
from django.utils.translation import gettext as _

from sandbox.conf import conf as sandbox_conf
from submissions import quotas
from submissions.models import Team
from submissions.registry import conf, configuration, keys, names

MOST_SCOPES = 20  # of one token: a client asks for the repository that it pushes to, and for a few to mount from

Action = Literal["pull", "push", "delete", "*"]


class Grant(TypedDict):
    """An entry of a token's `access`."""

    type: str
    name: str
    actions: list[Action]


class Denied(Exception):
    """A push that may not be; the message is a translated sentence that the client shows."""


def token(*, subject: str, access: list[Grant]) -> str:
    """A signed token that opens exactly `access`, for a few minutes."""
    now = int(time.time())
    return keys.sign(
        {
            "iss": configuration.ISSUER,
            "aud": configuration.SERVICE,
            "sub": subject,
            "iat": now,
            "nbf": now - 10,
            "exp": now + conf.conf().token_seconds,
            "jti": secrets.token_hex(16),
            "access": access,
        }
    )


def of_ourselves(repository: str, *actions: Action) -> str:
    """A token for the arena's own look into a repository."""
    return token(subject="", access=[{"type": "repository", "name": repository, "actions": list(actions)}])


def of_the_catalogue() -> str:
    return token(subject="", access=[{"type": "registry", "name": "catalog", "actions": ["*"]}])


def granted(*, user: Any, scopes: Iterable[str]) -> list[Grant]:
    """What of `scopes` ("repository:NAME:pull,push") a person is given.

    Raises Denied if they want to push what they may not: else a client would tell them no reason.
    """
    grants: list[Grant] = []
    for scope in list(scopes)[:MOST_SCOPES]:
        kind, _colon, rest = scope.partition(":")
        name, _colon, wanted = rest.rpartition(":")
        if kind != "repository" or not name:
            continue
        actions = _actions(user, name, set(wanted.split(",")))
        if actions:
            grants.append({"type": kind, "name": name, "actions": actions})
    return grants


def _actions(user: Any, repository: str, wanted: set[str]) -> list[Action]:
    team = names.team_of(repository)
    if team is None or not team.memberships.filter(user=user).exists():
        if "push" in wanted:
            raise Denied(
                _("You cannot push to this name. The page “Enter an image” of a challenge shows the name to use.")
            )
        return []
    if "push" not in wanted:
        return ["pull"] if "pull" in wanted else []
    if refusal := _refusal(team):
        raise Denied(refusal)
    return ["pull", "push"]


def _refusal(team: Team) -> str:
    """Why the team cannot enter anything now; empty if it can."""
    if team.challenge.current_phase is None:
        return _("This challenge does not take entries now.")
    if refusal := quotas.left(team).refusal:
        return refusal
    if shutil.disk_usage(settings.PRIVATE_ROOT).free < 2 * sandbox_conf().disk_reserve_bytes:
        return _("The server has no room for this image now. Its operator has been told; try again later.")
    return ""
