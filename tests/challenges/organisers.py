"""What organisers' tests share: a table that everybody has, and a small draft."""

import io
from typing import Any

import pandas as pd
from django.utils import timezone
from sklearn.datasets import load_breast_cancer

from challenges import actions, checks
from challenges.models import Challenge, CheckReport, Phase
from challenges.uploads import staged_table
from tests.challenges.conftest import clinic


def csv_of(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def breast_cancer_csv() -> bytes:
    """scikit-learn's 569 tumours with 30 measures; the last column is the diagnosis."""
    return csv_of(load_breast_cancer(as_frame=True).frame)


def clinic_csv() -> bytes:
    """600 invented patients; the last column says who has diabetes."""
    return csv_of(clinic().drop(columns=["stage", "days"]))


def new_challenge(by: Any, slug: str = "small", **fields: Any) -> Challenge:
    """A draft with one phase, without data."""
    texts = {"title": f"The {slug} one", "summary": "A test.", "overview": "# Hello", "rules": "Be fair."}
    challenge = Challenge(**{"slug": slug, "scenario": "model-membership", **texts, **fields})
    actions.save_challenge(challenge=challenge, by=by)
    actions.save_phase(phase=Phase(challenge=challenge), by=by)
    return challenge


def give_data(challenge: Challenge, content: bytes, name: str = "table.csv", by: Any = None, **how: Any) -> None:
    with staged_table(io.BytesIO(content), name, **how) as table:
        actions.set_data(challenge=challenge, table=table, by=by)


def small_draft(by: Any, slug: str = "small", **fields: Any) -> Challenge:
    """A draft with 600 invented patients, not checked yet."""
    challenge = new_challenge(by, slug, **fields)
    give_data(challenge, clinic_csv(), by=by, target="diabetes", roles={"age": "quasi-identifier"})
    return challenge


def checked(challenge: Challenge) -> CheckReport:
    """A passed check of the present state, for tests of what comes after it; the check itself is in test_checks.py."""
    Challenge.objects.filter(pk=challenge.pk).update(trivial_utility=0.5, reference_utility=0.9)
    challenge.refresh_from_db()
    return CheckReport.objects.create(
        challenge=challenge,
        state=CheckReport.State.PASSED,
        fingerprint=checks.fingerprint(challenge),
        finished_at=timezone.now(),
    )
