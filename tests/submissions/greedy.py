"""What runs in an isolated child: nothing of Django may be imported here."""

from typing import Any


def worth(*_asked: Any) -> int:
    """Stands for measuring a release that is made to need much memory."""
    return len(bytearray(64 << 30))
