"""Measuring what a release is worth happens in a child with a limit: whose fault it is when that comes to nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from challenges.metrics import bootstrap
from challenges.scenarios import registry
from sandbox.isolation import IsolationFault
from sandbox.reasons import Reason, Rejected
from submissions import reading, scoring
from submissions.models import Step, Submission
from tests.submissions import greedy

pytestmark = pytest.mark.django_db


@pytest.fixture
def last_step(ready: Callable[..., Submission]) -> Step:
    """The step of a defense that ends with a release, which lies in its result folder."""
    defense = ready("ada", "defense")
    queued = Step.objects.filter(submission=defense, phase__isnull=False).latest("pk")
    queued.name = "predict"  # the step before it leaves nothing that is judged
    queued.run.result_folder.mkdir(parents=True)
    registry.get(defense.challenge.scenario).reference_release(scoring.board_of(queued), queued.run.result_folder)
    return queued


def test_the_child_measures_what_the_scenario_does(last_step: Step) -> None:
    folder = last_step.run.result_folder
    direct = registry.get("model-membership").utility(scoring.board_of(last_step), folder)
    found = scoring.judge(last_step, folder)
    assert found["utility"] == direct.value
    assert np.allclose(bootstrap.unpack(found["replicates"]), direct.replicates)
    assert found["facts"] == direct.facts
    assert len(found["sha256"]) == 64


def test_a_release_that_takes_too_long_to_measure_is_its_makers_fault(last_step: Step, settings: Any) -> None:
    settings.JUDGE = {"seconds": 0.001, "memory_mb": 4096}
    with pytest.raises(Rejected, match="Measuring what the release is worth took more than") as refused:
        scoring.judge(last_step, last_step.run.result_folder)
    assert refused.value.reason == Reason.OUTPUT_INVALID


def test_so_is_one_that_takes_too_much_memory(last_step: Step, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.JUDGE = {"seconds": 60, "memory_mb": 512}
    monkeypatch.setattr(reading, "worth", greedy.worth)
    with pytest.raises(Rejected, match="needs more than 512 MB") as refused:
        scoring.judge(last_step, last_step.run.result_folder)
    assert refused.value.reason == Reason.OUTPUT_INVALID


def test_a_measurement_that_breaks_down_is_the_platforms_fault(last_step: Step) -> None:
    for path in last_step.run.result_folder.iterdir():
        path.unlink()
    with pytest.raises(IsolationFault, match="measuring a release: error"):
        scoring.judge(last_step, last_step.run.result_folder)
