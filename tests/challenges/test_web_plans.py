"""The two sides of a web exchange know nothing of each other: here they read each other's files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from challenges.scenarios import registry, web
from challenges.scenarios.base import Board
from challenges.scenarios.web_answers import read_asked, read_exchange
from sandbox.gateway.answers import Target
from sandbox.gateway.bodies import archive, arrays
from sandbox.gateway.desk import Desk
from sandbox.gateway.plan import CONTRACT, Answers, Plan
from sandbox.gateway.report import Report
from tests.challenges.web_images import Floats, packed, released, unpacked

MakeBoard = Callable[..., Board]
MEMBERSHIP = registry.get("model-membership").images("web/1")


def planned(step: str, board: Board, folder: Path) -> Plan:
    """The plan as the gateway reads it, and all that it names is there."""
    folder.mkdir()
    MEMBERSHIP.write_inputs(step, board, folder)
    plan = Plan.read(folder / "plan.json")
    named = [name for served in plan.serve.values() for name in served.files.values()]
    named += [mark.truth for record in plan.record.values() for mark in record.mark.values()]
    named += [call.body for call in plan.calls if call.body]
    named += [target.file for target in plan.target.values() if isinstance(target, Answers)]
    assert named
    assert all((folder / name).is_file() for name in named)
    return plan


def test_both_sides_mean_the_same_contract() -> None:
    assert web.CONTRACT == CONTRACT


def test_the_gateway_reads_the_plans_of_model_membership(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path / "release")
    fit = planned("fit", board, tmp_path / "fit")
    assert fit.seconds == 60
    assert [(call.method, call.route) for call in fit.calls] == [("POST", "/fit"), ("POST", "/predict")]
    assert not fit.target

    fitted = replace(board, previous=tmp_path / "release" / "fit" / "result")
    predict = planned("predict", fitted, tmp_path / "predict")
    assert not predict.serve
    assert {call.route for call in predict.calls} == {"/predict"}
    assert [call.save for call in predict.calls] == ["said/prediction-0"]

    attack = planned("attack", board, tmp_path / "attack")
    assert [call.route for call in attack.calls] == ["/fit", "/evaluate?data_split=validation"]
    assert attack.record["/utility/deanonymizer"].to == {"tuning": None, "validation": "said/scores"}
    assert set(attack.target) == {"/predict"}


def test_the_gateway_answers_every_row_that_an_attack_is_told_of(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board("stage"), tmp_path / "release")
    plan = planned("attack", board, tmp_path / "attack")
    target = plan.target["/predict"]
    assert isinstance(target, Answers)
    counted: list[tuple[int, int]] = []
    gateway = Target(target, tmp_path / "attack", tmp_path, lambda queries, live: counted.append((queries, live)))
    files = ("candidates", "members", "non-members", "auxiliary", "tuning")
    told = [unpacked((tmp_path / "attack" / f"{name}.npz").read_bytes())["X"] for name in files]
    for rows in told:
        for kind in (np.float64, np.float32):
            said = arrays(gateway.answer(archive(X=rows.astype(kind))), 1 << 20)
            assert said["prediction"].dtype == np.int64
            assert said["probabilities"].shape == (len(rows), 3)
    assert {live for _queries, live in counted} == {0}, "nothing of it is a live question"
    assert sum(queries for queries, _live in counted) == 2 * sum(len(rows) for rows in told)


@pytest.mark.parametrize("empty", [np.nan, -np.nan])
def test_the_gateway_knows_rows_with_gaps_and_zeros_of_either_sign(
    make_board: MakeBoard, tmp_path: Path, empty: float
) -> None:
    board = released(make_board(), tmp_path / "release")
    plan = planned("attack", board, tmp_path / "attack")
    target = plan.target["/predict"]
    assert isinstance(target, Answers)
    gateway = Target(target, tmp_path / "attack", tmp_path, lambda queries, live: None)
    rows: Floats = unpacked((tmp_path / "attack" / "candidates.npz").read_bytes())["X"]
    assert np.isnan(rows).any()
    assert (rows == 0).any()
    other = np.where(np.isnan(rows), empty, np.where(rows == 0, -0.0, rows))
    assert gateway.answer(archive(X=other)) == gateway.answer(archive(X=rows))


def test_marks_of_tuning_posts_are_those_of_the_rows_that_were_served(make_board: MakeBoard, tmp_path: Path) -> None:
    board = released(make_board(), tmp_path / "release")
    for step, route, name in (
        ("fit", "/utility/anonymizer", "training"),
        ("attack", "/utility/deanonymizer", "tuning"),
    ):
        plan = planned(step, board, tmp_path / step)
        desk = Desk(plan, tmp_path / step, tmp_path, Report(tmp_path / "exchange.json"))
        truth = unpacked((tmp_path / step / "tuning_truth.npz").read_bytes())["y"]
        for right in (True, False):
            said = packed(prediction=truth if right else 1 - truth.astype(np.int64))
            with desk.spool([said]) as body:
                marks = desk.post(plan.record[route], {"data_split": "tuning"}, body, "")
            assert marks["accuracy"] == float(right)
        assert len(truth) == len(unpacked((tmp_path / step / f"{name}.npz").read_bytes())["y"])


def test_the_scenario_reads_the_gateways_account(tmp_path: Path) -> None:
    calls, offered = ["POST /fit", "POST /evaluate"], ["GET /data/anonymizer/training", "POST /utility/anonymizer"]
    report = Report(tmp_path / "exchange.json", calls, offered)
    report.queries, report.live = 70, 7
    report.called("POST /fit", 201, "took 1 s")
    report.saw("GET /data/anonymizer/training?anonymizer=other", 404)
    report.close("")
    routes = {"POST /fit": 201, "GET /data/anonymizer/training?anonymizer=other": 404}
    assert read_exchange(tmp_path / "exchange.json") == {
        "routes": routes,
        "calls": calls,
        "unasked": ["POST /utility/anonymizer"],
        "queries": 70,
        "live": 7,
    }
    assert json.loads((tmp_path / "exchange.json").read_text())["problem"] == ""


def test_the_scenario_reads_what_the_gateway_hands_on(make_board: MakeBoard, tmp_path: Path) -> None:
    (tmp_path / "1.npz").write_bytes(archive(X=np.zeros((3, 5))))
    assert read_asked(tmp_path / "1.npz", make_board().game.schema).num_rows == 3
