"""Challenges as folders: in, out, in again; and folders that nobody should believe."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from anomed_site.models import User
from challenges import actions, bundles, samples, tables
from challenges.models import Challenge, Dataset, Phase
from challenges.uploads import own_sample
from tests.challenges.conftest import clinic
from tests.challenges.organisers import checked, clinic_csv, csv_of

pytestmark = pytest.mark.django_db

TOML = """
slug = "ward"
title = "The ward"
title_de = "Die Station"
summary = "Who was in the training data?"
summary_de = "Wer war in den Trainingsdaten?"
scenario = "model-membership"
time_zone = "America/New_York"
utility_metric = "balanced_accuracy"
ranking = "pareto"
novelty_prize = true

[limits]
seconds = 60
memory_mb = 1024

[quotas]
daily = 5
failures_daily = 7

[constants]
reference_leak = 0.25
revealed = 0.1

[sizes]
aux = 120
core = 60
candidates = 280

[data]
file = "patients.csv"
target = "diabetes"

[data.roles]
age = "quasi-identifier"
glucose = "secret"

[texts]
overview = "overview.md"
rules = "rules.md"

[[phases]]
kind = "development"
closes = 2040-06-30T12:00:00

[[phases]]
kind = "final"
opens = 2040-07-01T12:00:00+00:00
seeds = 3
folds = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ward = tmp_path / "ward"
    ward.mkdir()
    (ward / "challenge.toml").write_text(TOML)
    (ward / "patients.csv").write_bytes(clinic_csv())
    (ward / "overview.md").write_text("# Overview")
    (ward / "overview.de.md").write_text("# Überblick")
    (ward / "rules.md").write_text("Be fair.")
    return ward


@pytest.fixture
def rewritten(folder: Path) -> Callable[[str, str], Path]:
    """The folder, with one piece of its challenge.toml replaced by another."""

    def rewrite(old: str, new: str) -> Path:
        path = folder / "challenge.toml"
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))
        return folder

    return rewrite


def facts(challenge: Challenge) -> dict[str, Any]:
    """What makes a challenge, its name and its secrets aside."""
    own = {"id", "slug", "version", "created_at", "published_at", "closed_at", "status"}
    fields = {field.attname for field in challenge._meta.concrete_fields} - own
    dataset = challenge.dataset
    return {
        **{name: getattr(challenge, name) for name in fields},
        "phases": [(p.kind, p.opens_at, p.closes_at, p.seeds, p.folds) for p in challenge.phases.order_by("kind")],
        "data": (dataset.sha256, dataset.schema_json, dataset.profile, dataset.rows, dataset.sample_rows),
    }


def test_a_folder_becomes_a_draft(folder: Path, olga: User) -> None:
    challenge = bundles.load(folder=folder, by=olga)
    assert challenge.status == Challenge.Status.DRAFT
    assert list(challenge.organisers.all()) == [olga]
    assert (challenge.title_de, challenge.overview_de, challenge.rules_de) == ("Die Station", "# Überblick", "")
    assert (challenge.metric, challenge.seconds, challenge.cpus) == ("balanced_accuracy", 60, 1)
    assert (challenge.daily_quota, challenge.total_quota, challenge.failure_quota) == (5, 40, 7)
    assert (challenge.reference_leak, challenge.utility_threshold, challenge.revealed) == (0.25, 0.5, 0.1)
    assert (challenge.ranking, challenge.novelty_prize) == ("pareto", True)
    assert challenge.sizes.candidates == 280
    schema = challenge.dataset.schema
    assert (schema.target, schema.column("age").role, schema.column("glucose").role) == (
        "diabetes",
        "quasi-identifier",
        "secret",
    )
    development, final = challenge.phases.order_by("kind")
    assert (development.opens_at, development.closes_at) == (None, datetime(2040, 6, 30, 16, 0, tzinfo=UTC))
    assert (final.opens_at, final.seeds, final.folds) == (datetime(2040, 7, 1, 12, 0, tzinfo=UTC), 3, 1)


def test_a_final_that_names_no_seeds_gets_three(rewritten: Callable[[str, str], Path], olga: User) -> None:
    challenge = bundles.load(folder=rewritten("seeds = 3\nfolds = 1\n", ""), by=olga)
    assert list(challenge.phases.values_list("kind", "seeds", "folds")) == [("development", 1, 2), ("final", 3, 1)]


def test_importing_again_changes_nothing(folder: Path, olga: User) -> None:
    first = bundles.load(folder=folder, by=olga)
    secrets = list(first.phases.values_list("kind", "secret"))
    report = checked(first)
    second = bundles.load(folder=folder, by=olga)
    assert second.pk == first.pk
    assert facts(second) == facts(first)
    assert list(second.phases.values_list("kind", "secret")) == secrets
    assert second.dataset.sample.name == first.dataset.sample.name
    assert actions.is_current(report)


def test_importing_an_own_sample_again_keeps_the_check(
    folder: Path, rewritten: Callable[[str, str], Path], olga: User
) -> None:
    dataset = bundles.load(folder=folder, by=olga).dataset
    made_up = samples.generate(tables.read(dataset.table_path), dataset.schema, 300, 5)
    (folder / "own.csv").write_bytes(csv_of(made_up))
    rewritten('target = "diabetes"', 'target = "diabetes"\nsample = "own.csv"')
    first = bundles.load(folder=folder, by=olga)
    assert first.dataset.table.name == dataset.table.name
    report = checked(first)
    second = bundles.load(folder=folder, by=olga)
    assert second.dataset.sample.name == first.dataset.sample.name
    assert actions.is_current(report)

    rewritten('sample = "own.csv"\n', "")
    third = bundles.load(folder=folder, by=olga)
    assert (third.dataset.sample_origin, third.dataset.sample_rows) == (Dataset.Origin.GENERATED, 400)
    assert not actions.is_current(report)


def test_importing_again_brings_a_draft_in_line(
    rewritten: Callable[[str, str], Path], folder: Path, olga: User
) -> None:
    bundles.load(folder=folder, by=olga)
    rewritten("seconds = 60\n", "")
    rewritten(TOML[TOML.index('[[phases]]\nkind = "final"') :], "")
    (folder / "patients.csv").write_bytes(csv_of(clinic(500).drop(columns=["stage", "days"])))
    challenge = bundles.load(folder=folder, by=olga)
    assert challenge.seconds == 600
    assert [phase.kind for phase in challenge.phases.all()] == ["development"]
    assert challenge.dataset.rows == 500
    assert Challenge.objects.count() == 1


def test_options_of_the_scenario_travel_along(
    rewritten: Callable[[str, str], Path], olga: User, tmp_path: Path
) -> None:
    rewritten('scenario = "model-membership"', 'scenario = "synthetic-membership"')
    folder = rewritten("[limits]", "[options]\nrows = 250\n\n[limits]")
    challenge = bundles.load(folder=folder, by=olga)
    assert challenge.game.options == {"rows": 250}
    bundles.dump(challenge=challenge, folder=tmp_path / "written")
    again = bundles.load(folder=tmp_path / "written", by=olga, slug="again")
    assert facts(again) == facts(challenge)


def test_a_published_challenge_is_not_overwritten(folder: Path, olga: User) -> None:
    challenge = bundles.load(folder=folder, by=olga)
    checked(challenge)
    actions.publish(challenge=challenge, by=olga)
    with pytest.raises(bundles.BundleError, match="published already"):
        bundles.load(folder=folder, by=olga)
    assert bundles.load(folder=folder, by=olga, slug="other").status == Challenge.Status.DRAFT


def test_what_is_exported_is_the_same_when_imported(folder: Path, olga: User, tmp_path: Path) -> None:
    challenge = bundles.load(folder=folder, by=olga)
    challenge.summary = 'Quotes ", backslashes \\, tabs \t, “signs” and 💊'
    challenge.overview = "Line\r\nline"
    actions.save_challenge(challenge=challenge, by=olga)
    out = tmp_path / "out"
    bundles.dump(challenge=challenge, folder=out)
    again = bundles.load(folder=out, by=olga, slug="ward-2")
    assert facts(again) == facts(Challenge.objects.get(pk=challenge.pk))
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    with pytest.raises(bundles.BundleError, match="not empty"):
        bundles.dump(challenge=challenge, folder=out)


def test_an_own_sample_travels_along(folder: Path, olga: User, tmp_path: Path) -> None:
    challenge = bundles.load(folder=folder, by=olga)
    dataset = challenge.dataset
    made_up = samples.generate(tables.read(dataset.table_path), dataset.schema, 300, 5)
    with own_sample(io.BytesIO(csv_of(made_up)), "own.csv", table=dataset.table_path, schema=dataset.schema) as sample:
        actions.set_sample(challenge=challenge, sample=sample, by=olga)
    bundles.dump(challenge=challenge, folder=tmp_path / "out")
    again = bundles.load(folder=tmp_path / "out", by=olga, slug="ward-2").dataset
    assert again.sample_origin == Dataset.Origin.OWN
    pd.testing.assert_frame_equal(tables.read(again.sample_path), tables.read(challenge.dataset.sample_path))


def test_an_export_holds_no_secret(folder: Path, olga: User, tmp_path: Path) -> None:
    challenge = bundles.load(folder=folder, by=olga)
    checked(challenge)
    bundles.dump(challenge=challenge, folder=tmp_path / "out")
    content = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for phase in Phase.objects.all():
        secret = bytes(phase.secret)
        assert secret not in content
        assert secret.hex().encode() not in content
    assert b"olga@hospital.test" not in content


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[limits]", "[limits]\nsecond = 1", "challenge.toml: the key “second” in .limits. is unknown"),
        ('slug = "ward"', 'slug = "ward"\nstatus = "published"', "“status” in the first part is unknown"),
        ('slug = "ward"\n', "", "the key “slug” is missing"),
        ('slug = "ward"', 'slug = "../ward"', "“slug”"),
        ("seconds = 60", 'seconds = "60"', "“.limits. seconds” must be a whole number"),
        ("seconds = 60", "seconds = true", "“.limits. seconds” must be a whole number"),
        ("seconds = 60", "seconds = 0", "“seconds”"),
        ("seconds = 60", "seconds = -1", "“seconds”"),
        ("reference_leak = 0.25", "reference_leak = 7.0", "“reference_leak”"),
        ('"model-membership"', '"chess"', "“scenario”"),
        ('"balanced_accuracy"', '"luck"', "“utility_metric”"),
        ('"America/New_York"', '"../../etc/passwd"', "no time zone"),
        ('"America/New_York"', '"Mars/Olympus"', "no time zone"),
        ('kind = "final"', 'kind = "semifinal"', "“kind” of a phase"),
        ('kind = "final"', 'kind = "development"', "one phase of each “kind” only"),
        ("closes = 2040-06-30T12:00:00", "closes = 2040-06-30", "must be a date with a time"),
        ("[limits]", "[options]\nrows = 250\n\n[limits]", "“options”.*has no option “rows”"),
        ("[sizes]", "[sizes", "no valid TOML"),
        ('file = "patients.csv"', 'file = "/etc/passwd"', "leads out of the folder"),
        ('file = "patients.csv"', 'file = "../patients.csv"', "leads out of the folder"),
        ('file = "patients.csv"', 'file = "link.csv"', "leads out of the folder"),
        ('file = "patients.csv"', 'file = "none.csv"', "no file “none.csv”"),
        ('file = "patients.csv"', 'file = "."', "no file"),
        ('target = "diabetes"', 'target = "nothing"', "no column “nothing”"),
        ('age = "quasi-identifier"', 'age = "king"', "one of the roles"),
        ('rules = "rules.md"', 'rules = "large.md"', "larger than 1 MB"),
        ('rules = "rules.md"', 'rules = "latin.md"', "not coded as UTF-8"),
        ('rules = "rules.md"', 'terms = "rules.md"', "“terms” in .texts. is unknown"),
        ('file = "patients.csv"', 'file = "patients.csv"\ntask = "guessing"', "“.data. task” must be one of"),
    ],
)
def test_a_crooked_folder_is_refused_by_name(
    old: str, new: str, sentence: str, rewritten: Callable[[str, str], Path], olga: User
) -> None:
    folder = rewritten(old, new)
    (folder.parent / "patients.csv").write_bytes(clinic_csv())
    (folder / "link.csv").symlink_to(folder.parent / "patients.csv")
    (folder / "large.md").write_bytes(b"#" * (2 << 20))
    (folder / "latin.md").write_bytes("Ärzte".encode("latin-1"))
    with pytest.raises(bundles.BundleError, match=sentence):
        bundles.load(folder=folder, by=olga)
    assert not Challenge.objects.exists()


def test_commands_import_publish_and_export(folder: Path, olga: User, tmp_path: Path, capsys: Any) -> None:
    call_command("challenge_import", str(folder), organiser="olga@hospital.test", publish=True)
    challenge = Challenge.objects.get(slug="ward")
    assert challenge.status == Challenge.Status.PUBLISHED
    assert challenge.is_organiser(olga)
    assert "ward: published" in capsys.readouterr().out
    call_command("challenge_export", "ward", str(tmp_path / "out"))
    assert (tmp_path / "out" / "challenge.toml").is_file()
    with pytest.raises(CommandError, match="published already"):
        call_command("challenge_import", str(folder), verbosity=0)
    with pytest.raises(CommandError, match="Nobody has signed up"):
        call_command("challenge_import", str(folder), organiser="nobody@web.test")
    with pytest.raises(CommandError, match="no challenge"):
        call_command("challenge_export", "nothing", str(tmp_path / "elsewhere"))


def test_commands_check_and_publish_step_by_step(folder: Path, olga: User) -> None:
    call_command("challenge_import", str(folder), verbosity=0)
    with pytest.raises(CommandError, match="Run the check first"):
        call_command("challenge_publish", "ward")
    call_command("challenge_check", "ward")
    call_command("challenge_publish", "ward")
    assert Challenge.objects.get().status == Challenge.Status.PUBLISHED
