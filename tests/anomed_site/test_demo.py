"""What `make demo` plays: the plans that lie with the bundled challenges."""

from pathlib import Path

import pytest

from anomed_site import demo
from submissions.models import Submission

PLANS = sorted(demo.BUNDLED.glob("*/demo.toml"))


def test_the_default_scenario_has_a_demo() -> None:
    assert demo.find(demo.DEFAULT_SCENARIO).slug == "nhanes-diabetes"


def test_a_scenario_without_a_demo_is_told_with_those_that_there_are() -> None:
    with pytest.raises(demo.DemoFailed, match=r"no demo of “chess”.*model-membership"):
        demo.find("chess")


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.parent.name)
def test_a_plan_names_kits_that_there_are_and_all_anchors(plan: Path) -> None:
    play = next(found for found in map(demo.find, _scenarios()) if found.folder == plan.parent)
    roles = [entry.role for entry in play.entries]
    for entry in play.entries:
        assert (demo.KITS / entry.kit / "Dockerfile").is_file(), entry.kit
        assert entry.kind in Submission.Kind.values
        assert entry.role in Submission.Role.values
        assert bool(entry.team) == (entry.role == Submission.Role.ENTRY)
    assert {Submission.Role.TRIVIAL, Submission.Role.LEAKY} <= set(roles)
    assert roles.count(Submission.Role.BASELINE) >= 3
    assert {entry.kind for entry in play.entries if entry.team} == {"defense", "attack"}


def _scenarios() -> list[str]:
    with pytest.raises(demo.DemoFailed) as problem:
        demo.find("")
    return str(problem.value).split("There are: ")[1].rstrip(".").split(", ")


def test_kits_stand_on_shared_base_images() -> None:
    assert demo.base_image("majority") == "anomed/base"
    assert demo.base_image("dp-sgd") == "anomed/base-torch"
