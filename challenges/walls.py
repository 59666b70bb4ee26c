"""The walls that a challenge may demand around its images, beyond those that every image runs in.

Challenges know them by name only. Which hosts there are, and what they offer, is asked of whoever has registered: no
call goes up the house.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

# name: (what people call it, what it is): the sandbox has the same names, which a test compares
WALLS: Final[dict[str, tuple[Any, Any]]] = {
    "gvisor": (
        gettext_lazy("gVisor"),
        gettext_lazy("a kernel of its own between an image and the host's kernel; slower, above all with many files"),
    ),
    "userns": (
        gettext_lazy("user namespaces"),
        gettext_lazy("even root inside of a container would be nobody on the host; as fast as without"),
    ),
}
_hosts: list[Callable[[], Iterable[frozenset[str]]]] = []


def choices() -> list[tuple[str, str]]:
    """For a form: each name with a sentence."""
    return [(name, f"{title}: {sentence}") for name, (title, sentence) in WALLS.items()]


def titles(names: Iterable[str]) -> str:
    """The walls as people call them, in one line."""
    return ", ".join(str(WALLS[name][0]) for name in names if name in WALLS)


def check(names: Any) -> None:
    """Raises ValidationError unless it is a list of different names of walls."""
    if not isinstance(names, list) or not all(isinstance(name, str) and name in WALLS for name in names):
        raise ValidationError(_("Walls are a list of these names: %(known)s.") % {"known": ", ".join(WALLS)})
    if len(names) != len(set(names)):
        raise ValidationError(_("A wall is demanded twice."))


def ask(hosts: Callable[[], Iterable[frozenset[str]]]) -> None:
    """From now on asks there which walls each present host offers."""
    _hosts[:] = [hosts]


def are_offered(names: Iterable[str]) -> bool | None:
    """Whether some present host offers all of them; None if nobody knows of any hosts."""
    if not _hosts:
        return None
    wanted = frozenset(names)
    return any(wanted <= offered for offered in _hosts[0]())
