"""Who may do what with a challenge: object permissions, asked as `user.has_perm("challenges.…", challenge)`."""

from typing import Any, Final

import rules
from django.apps import AppConfig
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission

from challenges.models import Challenge

# Whoever is staff and in this group may make challenges in the admin, and sees those that they organise.
ORGANISERS: Final = "Organisers"
_MODEL_PERMISSIONS: Final = {
    "challenge": ("add", "change", "delete", "view"),
    "phase": ("add", "change", "delete", "view"),
    "dataset": ("view",),
    "checkreport": ("view",),
}


@rules.predicate
def is_organiser(user: Any, challenge: Challenge | None) -> bool:
    return challenge is not None and challenge.is_organiser(user)


@rules.predicate
def is_visible(user: Any, challenge: Challenge | None) -> bool:
    return challenge is not None and challenge.status != Challenge.Status.DRAFT


@rules.predicate
def is_draft(user: Any, challenge: Challenge | None) -> bool:
    return challenge is not None and challenge.status == Challenge.Status.DRAFT


rules.add_perm("challenges.look_challenge", is_visible | is_organiser)
rules.add_perm("challenges.view_challenge", is_organiser)
rules.add_perm("challenges.change_challenge", is_organiser)
rules.add_perm("challenges.delete_challenge", is_organiser & is_draft)
rules.add_perm("challenges.publish_challenge", is_organiser)
rules.add_perm("challenges.close_challenge", is_organiser)
rules.add_perm("challenges.freeze_challenge", is_organiser)
rules.add_perm("challenges.reveal_challenge", is_organiser)


def make_organisers_group(*, sender: AppConfig, using: str, **kwargs: Any) -> None:
    """After migrations: the group that a superuser ticks to make somebody an organiser."""
    create_permissions(sender, verbosity=0, using=using)  # Django's own turn may come after ours
    group, _created = Group.objects.using(using).get_or_create(name=ORGANISERS)
    wanted = Permission.objects.using(using).filter(
        content_type__app_label="challenges",
        codename__in=[f"{verb}_{model}" for model, verbs in _MODEL_PERMISSIONS.items() for verb in verbs],
    )
    group.permissions.add(*wanted)
