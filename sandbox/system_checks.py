"""What `manage.py check` says about the sandbox's settings."""

from typing import Any

from django.core.checks import CheckMessage, Error

from sandbox.conf import conf
from sandbox.offers import Wall


def walls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A wall that nobody knows would make every run wait for ever."""
    unknown = [name for name in conf().walls if name not in Wall.values]
    if not unknown:
        return []
    known = ", ".join(Wall.values)
    return [Error(f"ANOMED_WALLS names {', '.join(map(repr, unknown))}. Known are: {known}.", id="sandbox.E001")]
