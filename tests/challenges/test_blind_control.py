"""Blind controls in every scenario: who reads the release is at chance, who knows the people otherwise is caught."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges import splits, tables
from challenges.metrics import control
from challenges.metrics.control import Excess
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game
from challenges.scenarios.control import weigh
from challenges.schema import Column, Schema
from tests.challenges.conftest import clinic

EARLIER = tuple(f"earlier_{hour}" for hour in range(6))
LATER = tuple(f"later_{hour}" for hour in range(6))
ROLES = {"age": "quasi-identifier", "sex": "quasi-identifier", "glucose": "secret", "smoking": "secret"}


def patients(folder: Path) -> tuple[Path, Schema]:
    """A table for which one person's records come in pairs."""
    frame = clinic(900).drop(columns=["stage", "days"])
    frame["patient"] = [f"p{number // 2}" for number in range(len(frame))]
    upload, table = folder / "upload.csv", folder / "table.parquet"
    frame.to_csv(upload, index=False)
    schema = tables.profile(upload, ".csv", target="diabetes", patient="patient", roles=ROLES).schema
    tables.write_canonical(upload, schema, table)
    return table, schema


def recordings(folder: Path) -> tuple[Path, Schema]:
    """Persons whose two recordings resemble each other."""
    kinds = [Column(name, "integer", "quasi-identifier", minimum=0, maximum=400) for name in EARLIER]
    kinds += [Column(name, "integer", "feature", minimum=0, maximum=400) for name in LATER]
    schema = Schema((*kinds, Column("ill", "category", "target", categories=("no", "yes"))), "ill")
    random = np.random.default_rng(8)
    persons = random.normal(200, 40, (450, len(EARLIER)))
    both = [np.clip(persons + random.normal(0, 8, persons.shape), 0, 400).round() for _ in range(2)]
    frame = pd.DataFrame(np.hstack(both).astype(int), columns=[*EARLIER, *LATER])
    frame["ill"] = np.where(persons.mean(axis=1) > 200, "yes", "no")
    tables.write_frame(frame, schema, folder / "table.parquet")
    return folder / "table.parquet", schema


@pytest.fixture(params=list(registry.SCENARIOS))
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    """A control in a scenario: everything is of one deal, but the release gives away the people of another."""
    scenario = registry.get(request.param)
    table, schema = (recordings if request.param == "signal-linkage" else patients)(tmp_path)
    frame = tables.read(table)
    sizes = splits.Sizes(aux=60, core=30, candidates=300)
    deal = splits.deal(
        frame, schema, secret=b"s", challenge="c", phase="final", scope="final", seed=1, sizes=sizes, folds=2
    )
    other = splits.dealt_again(deal, frame, schema, key=b"twin")
    game = Game("c", request.param, schema, {"seconds": 60})
    made = Board(game, table, other, key=b"the twin's run", seed=1, resample=b"r")
    scenario.reference_release(made, tmp_path / "twin")
    return replace(made, deal=deal, other=other, key=b"the control's run", release=tmp_path / "twin")


def answers(board: Board, told: np.ndarray[Any, Any], folder: Path, random: np.random.Generator) -> Path:
    """What an attack leaves that takes `told` for the truth and, where the game needs it, reads the release well."""
    scenario = registry.get(board.game.scenario)
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    scenario.write_inputs("attack", board, folder / "in")
    files = json.loads((folder / "in" / "task.json").read_text())["files"]
    asked = pd.read_parquet(folder / "in" / files.get("candidates", files.get("background")))
    # the attack recognises everybody it is asked about, by what it knows of them: here by the order of the platform
    place = pd.Index(_names(board, "candidates" if "candidates" in files else "background")).get_indexer(asked["row"])
    if "candidates" in files:
        asked["score"] = told[place] + random.normal(0, 0.5, len(asked))
        asked[["row", "score"]].to_parquet(folder / "out" / "scores.parquet", index=False)
    elif board.game.scenario == "signal-linkage":
        nearest = _nearest(asked, pd.read_parquet(folder / "in" / files["release"]))
        asked["match"] = np.where(told[place], nearest, None)
        asked[["row", "match"]].to_parquet(folder / "out" / "guesses.parquet", index=False)
    else:
        truth = tables.read(board.table).iloc[board.deal.scored[place]].reset_index(drop=True)
        for secret in ("glucose", "smoking"):
            asked[secret] = truth[secret].where(told[place])
        asked[["row", "glucose", "smoking"]].to_parquet(folder / "out" / "guesses.parquet", index=False)
    scenario.read_outputs("attack", board, folder / "out", folder / "result")
    return folder / "result"


def _names(board: Board, table: str) -> list[str]:
    return splits.tokens(splits.derive(board.key, table), len(board.deal.scored))


def _nearest(asked: pd.DataFrame, release: pd.DataFrame) -> Any:
    distance = np.abs(asked[list(EARLIER)].to_numpy()[:, None] - release[list(LATER)].to_numpy()[None]).sum(axis=2)
    return release["row"].to_numpy()[distance.argmin(axis=1)]


def test_who_reads_all_that_the_release_tells_is_at_chance(played: Board, tmp_path: Path) -> None:
    """The strongest honest attack: it recovers the whole of the deal that the release was made with."""
    released = np.isin(played.deal.scored, played.released.train)
    result = answers(played, released, tmp_path / "honest", np.random.default_rng(1))
    found, _detail = weigh(registry.get(played.game.scenario), played, result)
    assert found.error > 0
    assert found.is_chance
    # the same answers in the duel from which they come show what there is to find
    own = registry.get(played.game.scenario).leaks(replace(played, deal=played.released), result)
    assert own.values.mean() > 4 * found.error


def test_who_knows_the_coins_without_the_release_is_caught(played: Board, tmp_path: Path) -> None:
    result = answers(played, played.deal.scored_member, tmp_path / "cheat", np.random.default_rng(1))
    found, _detail = weigh(registry.get(played.game.scenario), played, result)
    assert not found.is_chance
    assert found.leak > 0


def test_who_answers_the_opposite_of_what_it_knows_is_caught_too(played: Board, tmp_path: Path) -> None:
    result = answers(played, ~played.deal.scored_member, tmp_path / "cheat", np.random.default_rng(1))
    found, _detail = weigh(registry.get(played.game.scenario), played, result)
    assert not found.is_chance
    assert found.leak < 0


def test_to_the_container_it_is_a_duel_like_any_other(played: Board, tmp_path: Path) -> None:
    """The same files, tables, tokens, rows and known records; only what the defense gave away is another's."""
    scenario = registry.get(played.game.scenario)
    scenario.reference_release(replace(played, deal=played.deal, other=None, release=None), tmp_path / "own")
    duel = replace(played, other=None, release=tmp_path / "own")
    folders = []
    for name, board in (("control", played), ("duel", duel)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        scenario.write_inputs("attack", board, folders[-1])
    ours, theirs = ({file.name: file for file in folder.iterdir()} for folder in folders)
    assert ours.keys() == theirs.keys()
    same = {name for name in ours if ours[name].read_bytes() == theirs[name].read_bytes()}
    given_away = {"release.parquet", "answers.parquet", "aux_answers.parquet", "known_answers.parquet"}
    assert ours.keys() - same <= given_away
    for name in ours.keys() - same:
        assert pq.read_schema(ours[name]) == pq.read_schema(theirs[name])


def test_what_is_told_of_the_known_records_is_true_of_the_release(played: Board) -> None:
    """Else an attack could tell a control from a duel, and behave."""
    known = np.isin(played.deal.revealed, played.released.train)
    assert (known == played.deal.revealed_member).all()
    agree = (np.isin(played.deal.scored, played.released.train) == played.deal.scored_member).mean()
    assert 0.35 < agree < 0.65


def test_answers_that_leave_nothing_to_chance_are_at_chance(played: Board, tmp_path: Path) -> None:
    """The same score for everybody has a leak below 0 by the strict metric: that is no knowledge."""
    nobody = np.zeros(len(played.deal.scored), dtype=np.bool_)
    result = answers(played, nobody, tmp_path / "same", NoNoise())
    found, _detail = weigh(registry.get(played.game.scenario), played, result)
    assert found.is_chance


class NoNoise:
    """Draws that are always 0."""

    def normal(self, _mean: float, _spread: float, size: int) -> Any:
        return np.zeros(size)


# The arithmetic -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.floats(-1, 1))
def test_the_excess_is_the_distance_from_the_mean_of_chance(draws: list[float], leak: float) -> None:
    found = control.excess(leak, draws)
    assert found.leak == pytest.approx(leak - np.mean(draws), abs=1e-12)
    assert found.error == pytest.approx(np.std(draws, ddof=1) * np.sqrt(1 + 1 / len(draws)), abs=1e-12)


def test_chance_is_exceeded_about_as_often_as_is_promised() -> None:
    """Over 200,000 controls of attacks that know nothing, by 20 draws instead of 100 to make it more frequent."""
    random = np.random.default_rng(3)
    draws = random.normal(size=(200_000, 20))
    found = (random.normal(size=200_000) - draws.mean(axis=1)) / (draws.std(axis=1, ddof=1) * np.sqrt(1 + 1 / 20))
    off = int((np.abs(found) > control.ERRORS).sum())
    expected = 2 * 0.000384  # of a t distribution with 19 degrees of freedom
    assert off == pytest.approx(expected * 200_000, rel=0.25)


def test_seeds_are_weighed_together() -> None:
    found = control.together([Excess(0.02, 0.03), Excess(0.06, 0.04)])
    assert (found.leak, found.error) == (pytest.approx(0.04), pytest.approx(0.025))
    assert not control.together([Excess(0.1, 0.03)] * 3).is_chance  # each alone would be chance
    with pytest.raises(ValueError, match="At least one"):
        control.together([])
    with pytest.raises(ValueError, match="two other draws"):
        control.excess(0.1, [0.1])


def test_a_deal_made_again_keeps_all_but_the_coins_of_the_scored(tmp_path: Path) -> None:
    table, schema = patients(tmp_path)
    frame = tables.read(table)
    ask: Callable[..., Any] = splits.deal
    deal = ask(frame, schema, secret=b"s", challenge="c", phase="p", scope="x", seed=0, sizes=splits.Sizes(60, 30, 300))
    again = splits.dealt_again(deal, frame, schema, key=b"one")
    for part in ("aux", "core", "candidates", "test", "known", "fold", "revealed_member"):
        assert (getattr(again, part) == getattr(deal, part)).all(), part
    assert (again.member != deal.member).any()
    assert (splits.dealt_again(deal, frame, schema, key=b"one").member == again.member).all()
    assert (splits.dealt_again(deal, frame, schema, key=b"two").member != again.member).any()
    patient = frame["patient"].to_numpy()[again.candidates]
    assert pd.Series(again.member).groupby(patient).nunique().max() == 1
