"""A challenge as a folder: made into a draft, and written again. docs/organisers.md describes the folder."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from challenges import actions
from challenges.actions import Refused
from challenges.bundle_reading import (
    FIELDS,
    FILE,
    GENERAL,
    OPTIONS,
    PHASE,
    SECTIONS,
    TEXTS,
    BundleError,
    DataFiles,
    Keys,
    read,
)
from challenges.models import Challenge, Dataset, Phase
from challenges.tables import TableError
from challenges.toml_text import section
from challenges.uploads import StagedSample, StagedTable, own_sample, staged_table

__all__ = ["BundleError", "dump", "load", "read"]

# Importing ------------------------------------------------------------------------------------------------------------


def load(*, folder: Path, by: Any, slug: str = "") -> Challenge:
    """Makes a draft of a folder, or brings the draft of the same slug in line with it. Raises BundleError.

    Doing it again changes nothing: data that stayed the same keep their sample and their check.
    """
    bundle = read(folder)
    fields = {**bundle.challenge, **({"slug": slug} if slug else {})}
    stored = Challenge.objects.filter(slug=fields["slug"]).first()
    if stored is not None and stored.status != Challenge.Status.DRAFT:
        raise BundleError(
            _("The challenge “%(slug)s” is published already; import the folder under another slug.")
            % {"slug": stored.slug}
        )
    with ExitStack() as stack:
        try:
            table, sample = _staged(stack, bundle.data) if bundle.data else (None, None)
            return _store(stored, fields, bundle.phases, table, sample, by)
        except (TableError, Refused) as error:
            raise BundleError(str(error)) from error
        except ValidationError as error:
            raise BundleError(_sentence(error)) from error


def _staged(stack: ExitStack, data: DataFiles) -> tuple[StagedTable, StagedSample | None]:
    file = stack.enter_context(data.file.open("rb"))
    table = stack.enter_context(
        staged_table(file, data.file.name, target=data.target, patient=data.patient, roles=data.roles, task=data.task)
    )
    if data.sample is None:
        return table, None
    sample = stack.enter_context(data.sample.open("rb"))
    schema = table.profile.schema
    return table, stack.enter_context(own_sample(sample, data.sample.name, table=table.table, schema=schema))


@transaction.atomic
def _store(
    stored: Challenge | None,
    fields: dict[str, Any],
    phases: list[dict[str, Any]],
    table: StagedTable | None,
    sample: StagedSample | None,
    by: Any,
) -> Challenge:
    challenge: Challenge = _filled(stored or Challenge(), FIELDS, fields)
    challenge.full_clean()
    actions.save_challenge(challenge=challenge, by=by, reason=_("imported"))
    _store_phases(challenge, phases, by)
    if table is not None and not _has_table(challenge, table, own_sample=sample is not None):
        actions.set_data(challenge=challenge, table=table, by=by)
    if sample is not None and not _has_sample(challenge, sample):
        actions.set_sample(challenge=challenge, sample=sample, by=by)
    challenge.refresh_from_db()
    return challenge


def _store_phases(challenge: Challenge, phases: list[dict[str, Any]], by: Any) -> None:
    for phase in challenge.phases.exclude(kind__in=[facts["kind"] for facts in phases]):
        actions.delete_phase(phase=phase)
    kept = {phase.kind: phase for phase in challenge.phases.all()}
    for facts in phases:  # one that is there keeps its secret, so that the deals stay the same
        stored = kept.get(facts["kind"]) or Phase(challenge=challenge)
        phase = _filled(stored, [name for _kind, name in PHASE.values()], {**Phase.usual(facts["kind"]), **facts})
        phase.full_clean(exclude=["challenge"])
        actions.save_phase(phase=phase, by=by)


def _filled(thing: Any, names: Iterable[str], values: Mapping[str, Any]) -> Any:
    """The instance with these fields set, to their defaults where there is no value."""
    for name in names:
        setattr(thing, name, values[name] if name in values else thing._meta.get_field(name).get_default())
    return thing


def _has_table(challenge: Challenge, table: StagedTable, *, own_sample: bool) -> bool:
    """Whether the draft has this table already, with a sample of the kind that the folder wants."""
    dataset = Dataset.objects.filter(challenge=challenge).first()
    return (
        dataset is not None
        and dataset.sha256 == table.sha256
        and dataset.schema_json == table.profile.schema.to_json()
        and bool(dataset.sample)
        and (own_sample or dataset.sample_origin == Dataset.Origin.GENERATED)
    )


def _has_sample(challenge: Challenge, sample: StagedSample) -> bool:
    dataset = Dataset.objects.get(challenge=challenge)
    return (dataset.sample_sha256, dataset.sample_origin) == (sample.sha256, sample.origin)


def _sentence(error: ValidationError) -> str:
    """The first problem, with the key as the file calls it."""
    name, problems = next(iter(error.message_dict.items()))
    keys = {target: key for keys in (GENERAL, *SECTIONS.values(), PHASE) for key, (_kind, target) in keys.items()}
    return _("%(file)s: “%(key)s”: %(problem)s") % {"file": FILE, "key": keys.get(name, name), "problem": problems[0]}


# Exporting ------------------------------------------------------------------------------------------------------------


def dump(*, challenge: Challenge, folder: Path) -> None:
    """Writes a challenge as a folder, private data included, readable by this user only. No secret is in it."""
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(_("The folder “%(name)s” is not empty.") % {"name": folder})
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    parts = [section("", _told(challenge, GENERAL))]
    parts.append(section(OPTIONS, challenge.options))
    parts += [section(name, _told(challenge, keys)) for name, keys in SECTIONS.items()]
    dataset = Dataset.objects.filter(challenge=challenge).first()
    if dataset is not None:
        parts.append(_dump_data(dataset, folder))
    parts.append(_dump_texts(challenge, folder))
    zone = ZoneInfo(challenge.time_zone)
    for phase in challenge.phases.all():
        told = _told(phase, PHASE)
        dates = {key: told[key] and told[key].astimezone(zone) for key in ("opens", "closes")}
        parts.append(section("[phases]", {**told, **dates}))
    _write(folder / FILE, "".join(parts).encode())


def _told(thing: Any, keys: Keys) -> dict[str, Any]:
    return {key: getattr(thing, name) for key, (_kind, name) in keys.items()}


def _dump_data(dataset: Dataset, folder: Path) -> str:
    """The table as it was uploaded: reading it again gives the same canonical table and the same columns."""
    schema = dataset.schema
    name = f"data{Path(dataset.source.path).suffix}"
    with dataset.source.open("rb") as file:
        _write(folder / name, file.read())
    facts = {"file": name, "target": schema.target or None, "patient": schema.patient_id}
    facts["task"] = schema.task if schema.target else None
    if dataset.sample and dataset.sample_origin == Dataset.Origin.OWN:
        facts["sample"] = "sample.parquet"
        with dataset.sample.open("rb") as file:
            _write(folder / "sample.parquet", file.read())
    roles = {column.name: column.role for column in schema.columns if column.role in ("quasi-identifier", "secret")}
    return section("data", facts) + section("data.roles", roles)


def _dump_texts(challenge: Challenge, folder: Path) -> str:
    names = {}
    for key, text in _told(challenge, TEXTS).items():
        if text:
            names[key] = f"{key.replace('_de', '.de')}.md"
            _write(folder / names[key], text.encode())
    return section("texts", names)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
