"""Found by django-rules at start: makes the permissions known."""

from submissions import permissions  # noqa: F401
