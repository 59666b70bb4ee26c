"""Settings that only the challenges of one scenario have. Each scenario declares its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_KINDS: Mapping[type, Any] = {
    bool: gettext_lazy("true or false"),
    int: gettext_lazy("a whole number"),
    float: gettext_lazy("a number"),
    str: gettext_lazy("a text in quotation marks"),
}


@dataclass(frozen=True)
class Option:
    """One setting: of the kind bool, int, float or str, within bounds or among `choices` where there are any.

    `default` holds where a challenge says nothing; None means that the scenario finds a value by itself. `about` is a
    sentence for organisers.
    """

    name: str
    kind: type
    about: Any
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> None:
        """Raises ValueError with a sentence if this cannot be the setting's value."""
        fits = isinstance(value, int | float) if self.kind is float else isinstance(value, self.kind)
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            raise ValueError(_("“%(name)s” must be %(kind)s.") % {"name": self.name, "kind": _KINDS[self.kind]})
        if self.choices and value not in self.choices:
            facts = {"name": self.name, "choices": ", ".join(self.choices)}
            raise ValueError(_("“%(name)s” must be one of %(choices)s.") % facts)
        if self.minimum is not None and not value >= self.minimum:  # so said, NaN fails too
            raise ValueError(_("“%(name)s” must be at least %(least)s.") % {"name": self.name, "least": self.minimum})
        if self.maximum is not None and not value <= self.maximum:
            raise ValueError(_("“%(name)s” must be at most %(most)s.") % {"name": self.name, "most": self.maximum})


def check(known: tuple[Option, ...], given: Any) -> None:
    """Raises ValueError with a sentence unless `given` is a table of known settings with possible values."""
    if not isinstance(given, dict):
        raise ValueError(_("The options of the scenario must be a table of names and values."))
    options = {option.name: option for option in known}
    for name, value in given.items():
        if name not in options:
            listed = ", ".join(sorted(options)) or "–"
            raise ValueError(
                _("This scenario has no option “%(name)s”. Known are: %(known)s.") % {"name": name, "known": listed}
            )
        options[name].check(value)
