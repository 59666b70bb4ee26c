"""What a challenge's folder says: `challenge.toml`, texts, paths of data. Read strictly: it may come from anywhere.

docs/organisers.md describes every key.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from challenges.locks import LIMITS
from challenges.models import Challenge, Phase
from challenges.schema import ROLES, TASKS
from challenges.untrusted import ORGANISER_CAPS

FILE: Final = "challenge.toml"
_TEXT_BYTES: Final = 1 << 20

# key: (kind, field of the model)
Keys = Mapping[str, tuple[type, str]]
GENERAL: Final[Keys] = {
    "slug": (str, "slug"),
    "title": (str, "title"),
    "title_de": (str, "title_de"),
    "summary": (str, "summary"),
    "summary_de": (str, "summary_de"),
    "scenario": (str, "scenario"),
    "time_zone": (str, "time_zone"),
    "utility_metric": (str, "metric"),
    "white_box": (bool, "white_box"),
    "ranking": (str, "ranking"),
    "novelty_prize": (bool, "novelty_prize"),
}
SECTIONS: Final[dict[str, Keys]] = {
    "limits": {
        **{name: (int, name) for name in LIMITS},
        "walls": (list, "walls"),
    },
    "quotas": {
        "daily": (int, "daily_quota"),
        "total": (int, "total_quota"),
        "failures_daily": (int, "failure_quota"),
        "active": (int, "active_limit"),
    },
    "constants": {name: (float, name) for name in ("reference_leak", "utility_threshold", "revealed")},
    "sizes": {"aux": (int, "aux_size"), "core": (int, "core_size"), "candidates": (int, "candidate_size")},
}
_DATA: Final[Keys] = {name: (str, name) for name in ("file", "target", "patient", "task", "sample")}
TEXTS: Final[Keys] = {
    f"{key}{suffix}": (str, f"{name}{suffix}")
    for key, name in (("overview", "overview"), ("data", "data_text"), ("rules", "rules"))
    for suffix in ("", "_de")
}
PHASE: Final[Keys] = {
    "kind": (str, "kind"),
    "opens": (datetime, "opens_at"),
    "closes": (datetime, "closes_at"),
    "seeds": (int, "seeds"),
    "folds": (int, "folds"),
}
# Its keys are the scenario's own: the challenge is asked whether it can have them.
OPTIONS: Final = "options"
FIELDS: Final = [OPTIONS, *(name for keys in (GENERAL, *SECTIONS.values(), TEXTS) for _kind, name in keys.values())]
_KINDS: Final[dict[type, Any]] = {
    str: gettext_lazy("a text in quotation marks"),
    int: gettext_lazy("a whole number"),
    float: gettext_lazy("a number"),
    bool: gettext_lazy("true or false"),
    list: gettext_lazy("a list in square brackets"),
    datetime: gettext_lazy("a date with a time, such as 2027-01-31T18:00:00"),
}


class BundleError(ValueError):
    """A folder cannot be imported or written; the message is a sentence that names the key and the file."""


@dataclass(frozen=True)
class DataFiles:
    """The `[data]` of a folder."""

    file: Path
    target: str = ""
    patient: str = ""
    task: str = ""
    sample: Path | None = None
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """What a folder says: values for the challenge's fields and its phases' fields, and where its data are."""

    challenge: dict[str, Any]
    phases: list[dict[str, Any]]
    data: DataFiles | None


def read(folder: Path) -> Bundle:
    """Reads a folder without believing it: unknown keys, wrong kinds and paths out of it raise BundleError."""
    facts = _toml(folder)
    known = {*GENERAL, *SECTIONS, OPTIONS, "data", "texts", "phases"}
    _refuse_unknown(facts, known, "")
    values = _values({key: facts[key] for key in facts if key in GENERAL}, GENERAL, "")
    for lacking in ("slug", "title", "summary", "scenario"):
        if lacking not in values:
            raise BundleError(_("%(file)s: the key “%(key)s” is missing.") % {"file": FILE, "key": lacking})
    for name, keys in SECTIONS.items():
        values |= _values(_table(facts, name), keys, name)
    values[OPTIONS] = _table(facts, OPTIONS)
    values |= _texts(folder, _table(facts, "texts"))
    phases = facts.get("phases", [{"kind": "development"}])
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        raise BundleError(_("%(file)s: write phases as [[phases]].") % {"file": FILE})
    kinds = [str(phase.get("kind")) for phase in phases]
    if len(kinds) != len(set(kinds)):
        raise BundleError(_("%(file)s: there can be one phase of each “kind” only.") % {"file": FILE})
    zone = _zone(values.get("time_zone", Challenge().time_zone))
    return Bundle(values, [_phase(phase, zone) for phase in phases], _data(folder, facts))


def _toml(folder: Path) -> dict[str, Any]:
    path = _inside(folder, FILE, _TEXT_BYTES)
    try:
        return tomllib.loads(path.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(_("%(file)s is no valid TOML: %(problem)s.") % {"file": FILE, "problem": error}) from error


def _table(facts: dict[str, Any], name: str) -> dict[str, Any]:
    table = facts.get(name, {})
    if not isinstance(table, dict):
        raise BundleError(_("%(file)s: write [%(section)s] as a table.") % {"file": FILE, "section": name})
    return table


def _refuse_unknown(facts: Mapping[str, Any], known: Any, name: str) -> None:
    unknown = [key for key in facts if key not in known]
    if unknown:
        place = f"[{name}]" if name else _("the first part")
        raise BundleError(
            _("%(file)s: the key “%(key)s” in %(place)s is unknown. Known are: %(known)s.")
            % {"file": FILE, "key": unknown[0], "place": place, "known": ", ".join(sorted(known))}
        )


def _values(facts: dict[str, Any], keys: Keys, name: str) -> dict[str, Any]:
    """Values by field of the model, each of the right kind."""
    _refuse_unknown(facts, keys, name)
    found = {}
    for key, value in facts.items():
        kind, target = keys[key]
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            place = f"[{name}] " if name else ""
            raise BundleError(
                _("%(file)s: “%(key)s” must be %(kind)s.") % {"file": FILE, "key": place + key, "kind": _KINDS[kind]}
            )
        found[target] = value
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown names, and names that are paths
        raise BundleError(_("%(file)s: there is no time zone “%(zone)s”.") % {"file": FILE, "zone": name}) from error


def _phase(facts: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    values = _values(facts, PHASE, "[phases]")
    if values.get("kind") not in Phase.Kind.values:
        raise BundleError(
            _("%(file)s: the “kind” of a phase must be one of %(known)s.")
            % {"file": FILE, "known": ", ".join(Phase.Kind.values)}
        )
    for name in ("opens_at", "closes_at"):
        date = values.get(name)
        if date is not None and date.tzinfo is None:  # without an offset: the challenge's own time
            values[name] = date.replace(tzinfo=zone)
    return values


def _texts(folder: Path, facts: dict[str, Any]) -> dict[str, str]:
    """The texts by field. German ones are named by `overview_de`, or lie beside the English as `overview.de.md`."""
    names = _values(facts, TEXTS, "texts")
    for field_name, name in list(names.items()):
        sibling = Path(name).with_suffix(".de.md")
        if name and (folder / sibling).is_file():
            names.setdefault(f"{field_name}_de", str(sibling))
    return {field_name: _text(folder, name) for field_name, name in names.items()}


def _text(folder: Path, name: str) -> str:
    try:
        return _inside(folder, name, _TEXT_BYTES).read_bytes().decode()  # line ends as they are
    except UnicodeDecodeError as error:
        raise BundleError(_("The file “%(name)s” is not coded as UTF-8.") % {"name": name}) from error


def _data(folder: Path, facts: dict[str, Any]) -> DataFiles | None:
    if "data" not in facts:
        return None
    given = dict(_table(facts, "data"))
    roles = given.pop("roles", {})
    if not isinstance(roles, dict) or not all(role in ROLES for role in roles.values()):
        raise BundleError(
            _("%(file)s: [data.roles] gives columns one of the roles %(known)s.")
            % {"file": FILE, "known": ", ".join(ROLES)}
        )
    values = _values(given, _DATA, "data")
    if "file" not in values:
        raise BundleError(_("%(file)s: the key “%(key)s” is missing.") % {"file": FILE, "key": "[data] file"})
    if values.get("task", "") not in ("", *TASKS):
        raise BundleError(
            _("%(file)s: “%(key)s” must be one of %(known)s.")
            % {"file": FILE, "key": "[data] task", "known": ", ".join(TASKS)}
        )
    values["file"] = _inside(folder, values["file"], ORGANISER_CAPS.size)
    if "sample" in values:
        values["sample"] = _inside(folder, values["sample"], ORGANISER_CAPS.size)
    return DataFiles(**values, roles=roles)


def _inside(folder: Path, name: str, largest: int) -> Path:
    """The regular file of this name, which lies in the folder also after links are followed, and is not too large."""
    if "\0" in name or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(_("The path “%(name)s” leads out of the folder.") % {"name": name})
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BundleError(_("The path “%(name)s” leads out of the folder.") % {"name": name})
    if not path.is_file():
        raise BundleError(_("There is no file “%(name)s” in the folder.") % {"name": name})
    if path.stat().st_size > largest:
        raise BundleError(_("The file “%(name)s” is larger than %(size)s MB.") % {"name": name, "size": largest >> 20})
    return path
