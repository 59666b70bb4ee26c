"""The cast. Olga organises the challenge `clinic`; Ada and Ben take part in it; Carl only has an account.

The challenge's data are invented patients; its splits, releases and scores are computed by the real code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.core.cache import cache
from django.core.files import File
from django.utils import timezone, translation

from anomed_site.models import User
from challenges import samples, tables
from challenges.models import Challenge, Dataset, Phase
from sandbox.models import Image
from submissions import actions, flow
from submissions.models import Duel, Submission, Team
from submissions.states import State
from tests import played
from tests.arena import patients

PASSWORD = "correct horse battery"

# A busy machine says nothing about a formula.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing a password well takes half a second on purpose; the cast is made anew for each test."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def plain_static_files(settings: Any) -> None:
    """Style sheets keep their plain names: tests run without collectstatic."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def english_again() -> None:
    """A German request leaves its thread German; each test begins in English."""
    translation.activate("en")


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    """Forgets who tried to sign in how often, so that tests do not slow each other down."""
    cache.clear()


def person(email: str, **fields: Any) -> User:
    return User.objects.create_user(email, PASSWORD, **fields)


@pytest.fixture
def olga(db: None) -> User:
    """Organises the challenge; staff, not a superuser."""
    return person("olga@hospital.test", is_staff=True)


@pytest.fixture
def ada(db: None) -> User:
    return person("ada@uni.test")


@pytest.fixture
def ben(db: None) -> User:
    return person("ben@uni.test")


@pytest.fixture
def carl(db: None) -> User:
    return person("carl@web.test")


@pytest.fixture
def clinic(olga: User, tmp_path: Path) -> Challenge:
    """A published challenge with an open development phase."""
    challenge = Challenge.objects.create(
        slug="clinic",
        title="Clinic",
        title_de="Klinik",
        summary="Who was in the training data?",
        rules="Be fair.",
        scenario="model-membership",
        status=Challenge.Status.PUBLISHED,
        published_at=timezone.now(),
        trivial_utility=0.5,
        reference_utility=0.9,
        seconds=60,
        memory_mb=512,
        output_mb=16,
    )
    challenge.organisers.add(olga)
    Phase.objects.create(challenge=challenge, opens_at=timezone.now(), folds=2)
    upload = tmp_path / "patients.csv"
    patients().to_csv(upload, index=False)
    schema = tables.profile(upload, ".csv", target="diabetes", patient="patient").schema
    table = tmp_path / "table.parquet"
    sha256 = tables.write_canonical(upload, schema, table)
    sample_csv = tmp_path / "sample.csv"
    sample_frame = samples.generate(tables.read(table), schema, 400, 1)
    sample_frame.to_csv(sample_csv, index=False)
    sample = tmp_path / "sample.parquet"
    tables.write_canonical(sample_csv, schema, sample)
    dataset = Dataset(
        challenge=challenge,
        file_name="patients.csv",
        sha256=sha256,
        rows=len(tables.read(table)),
        sample_rows=len(tables.read(sample)),
        schema_json=schema.to_json(),
    )
    for field, path in (("table", table), ("sample", sample)):
        with path.open("rb") as file:
            getattr(dataset, field).save(path.name, File(file), save=False)
    dataset.save()
    return Challenge.objects.get(pk=challenge.pk)


@pytest.fixture
def teams(clinic: Challenge, ada: User, ben: User) -> dict[str, Team]:
    """Ada's and Ben's teams of one."""
    return {
        "ada": actions.join(challenge=clinic, user=ada, team_name="Team Ada"),
        "ben": actions.join(challenge=clinic, user=ben, team_name="Team Ben"),
    }


@pytest.fixture
def image(db: None) -> Image:
    """An image that passed its check; no test that uses it starts a container."""
    return Image.objects.create(image_id="sha256:" + "0" * 64, layers=[], size=1)


@pytest.fixture
def ready(clinic: Challenge, teams: dict[str, Team], olga: User, image: Image) -> Callable[..., Submission]:
    """Enters something and takes it through upload, check and rehearsal: `ready("ada", "defense")`."""

    def make(who: str, kind: str, role: str = "entry", name: str = "") -> Submission:
        by = olga if role != "entry" else teams[who].members.get()
        submission = actions.enter(
            challenge=clinic, by=by, kind=kind, role=role, file_name=f"{name or kind}.tar", size=10
        )
        flow.uploaded(submission)
        flow.image_accepted(submission, image)
        while submission.state == State.REHEARSING:
            step = submission.steps.order_by("-pk")[0]
            flow.run_ended(step, step.run, {})
            submission.refresh_from_db()
        return submission

    return make


@pytest.fixture
def met(ready: Callable[..., Submission]) -> Submission:
    """Ada's defense, met by two baselines and by Ben's attack, which knows some members for certain."""
    defense = ready("ada", "defense", name="linear")
    for name in ("random", "loss"):
        ready("", "attack", role="baseline", name=name)
    ready("ben", "attack", name="sharp")
    played.release(defense)
    for duel in Duel.objects.pending().select_related("attack"):
        played.duel(duel, strength=0.2, known=0.4 if duel.attack.name == "sharp" else 0.0)
    return Submission.objects.with_context().get(pk=defense.pk)
