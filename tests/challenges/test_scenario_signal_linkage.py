"""One whole game of linkage: recordings are released, and an earlier recording of each person is laid beside them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from challenges import splits, tables
from challenges.features import Floats
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, OutputProblem
from challenges.scenarios.signal_linkage import canonical
from challenges.scenarios.trials import Trial
from challenges.schema import Column, Schema

SCENARIO = registry.get("signal-linkage")
PERSONS, VALUES = 500, 8
EARLIER = tuple(f"earlier_{hour}" for hour in range(VALUES))
LATER = tuple(f"later_{hour}" for hour in range(VALUES))
SCHEMA = Schema(
    (
        *(Column(name, "integer", "quasi-identifier", minimum=0, maximum=400) for name in EARLIER),
        *(Column(name, "integer", "feature", minimum=0, maximum=400) for name in LATER),
        Column("ill", "category", "target", categories=("no", "yes")),
    ),
    "ill",
)
Change = Callable[[Floats, np.random.Generator], Floats]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persons whose two recordings resemble each other; the ill have a higher level."""
    random = np.random.default_rng(8)
    persons = random.normal(200, 40, (PERSONS, VALUES))
    earlier, later = (np.clip(persons + random.normal(0, 8, persons.shape), 0, 400).round() for _ in range(2))
    frame = pd.DataFrame(np.hstack([earlier, later]).astype(int), columns=[*EARLIER, *LATER])
    frame["ill"] = np.where(persons.mean(axis=1) + random.normal(0, 5, PERSONS) > 205, "yes", "no")
    path = tmp_path_factory.mktemp("recordings") / "table.parquet"
    tables.write_frame(frame, SCHEMA, path)
    return path


@pytest.fixture(scope="module")
def board(recordings: Path) -> Board:
    return deal_anew(recordings, 1)


def deal_anew(table: Path, seed: int) -> Board:
    deal = splits.deal(
        tables.read(table),
        SCHEMA,
        secret=b"the phase's secret",
        challenge="recordings",
        phase="development",
        scope="submission-1",
        seed=seed,
        sizes=splits.Sizes(aux=80, core=40, candidates=240),
        revealed=0.0,
        folds=2,
    )
    game = Game("recordings", "signal-linkage", SCHEMA, {"seconds": 60})
    return Board(game, table, deal, key=bytes([seed]) * 32, seed=seed, resample=b"resamples")


def inputs(step: str, board: Board, folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """task.json of a step, and its tables by name."""
    folder.mkdir(parents=True)
    SCENARIO.write_inputs(step, board, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    return task, {name: pd.read_parquet(folder / file) for name, file in task["files"].items()}


def released(board: Board, root: Path, change: Change) -> Board:
    """The board after a defense that does `change` to the recordings and keeps the tokens where they are."""
    _task, given = inputs("release", board, root / "release-in")
    traces = given["traces"]
    values = change(traces[list(LATER)].to_numpy(float), np.random.default_rng(0))
    collected = root / "release-out"
    collected.mkdir()
    frame = pd.DataFrame(values, columns=list(LATER))
    frame.insert(0, "row", traces["row"])
    frame.sample(frac=1, random_state=1).to_parquet(collected / "release.parquet", index=False)
    facts = SCENARIO.read_outputs("release", board, collected, root / "release")
    assert facts == {"rows": len(board.deal.train)}
    return replace(board, release=root / "release")


def guesses_of_nearest(given: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """An attack: the released row at the least distance from the earlier recording."""
    known, shown = given["background"][list(EARLIER)].to_numpy(float), given["release"][list(LATER)].to_numpy(float)
    nearest = ((known[:, None] - shown[None]) ** 2).sum(axis=2).argmin(axis=1)
    return given["background"][["row"]].assign(match=given["release"]["row"].to_numpy()[nearest])


def attacked(board: Board, root: Path) -> Any:
    """The leaks that this attack finds."""
    _task, given = inputs("attack", board, root / "attack-in")
    (root / "attack-out").mkdir()
    guesses_of_nearest(given).to_csv(root / "attack-out" / "guesses.csv", index=False)
    facts = SCENARIO.read_outputs("attack", board, root / "attack-out", root / "attack")
    assert facts == {"rows": len(board.deal.scored), "pointed": len(board.deal.scored)}
    return SCENARIO.leaks(board, root / "attack")


def as_recorded(values: Floats, _random: np.random.Generator) -> Floats:
    return values


def flat(values: Floats, _random: np.random.Generator) -> Floats:
    return np.full_like(values, 200)


def exchanged(values: Floats, random: np.random.Generator) -> Floats:
    """Everybody's recording under somebody else's token."""
    return np.roll(values, 1, axis=0)


# What containers get ------------------------------------------------------------------------------------------------


def test_a_defense_gets_the_later_recordings_and_neither_the_earlier_ones_nor_the_target(
    board: Board, tmp_path: Path
) -> None:
    task, given = inputs("release", board, tmp_path / "in")
    assert task["files"] == {"traces": "traces.parquet"}
    traces = given["traces"]
    assert list(traces.columns) == ["row", *LATER]
    own = tables.read(board.table).iloc[board.deal.train][list(LATER)]
    assert sorted(map(tuple, traces[list(LATER)].to_numpy())) == sorted(map(tuple, own.to_numpy()))
    assert traces[list(LATER)].to_numpy().tolist() != own.to_numpy().tolist()
    assert traces["row"].is_unique


def test_an_attack_gets_the_release_the_background_and_both_recordings_of_strangers(
    board: Board, tmp_path: Path
) -> None:
    played = released(board, tmp_path, as_recorded)
    task, given = inputs("attack", played, tmp_path / "in")
    assert set(task["files"]) == {"release", "background", "aux"}
    assert list(given["release"].columns) == ["row", *LATER]
    assert list(given["background"].columns) == ["row", *EARLIER]
    assert list(given["aux"].columns) == ["row", *EARLIER, *LATER]
    assert len(given["background"]) == len(board.deal.scored)
    assert set(map(tuple, given["aux"][list(LATER)].to_numpy())).isdisjoint(
        map(tuple, given["release"][list(LATER)].to_numpy())
    )
    tokens = pd.concat([table["row"] for table in given.values()])
    assert tokens.is_unique
    _task, again = inputs("release", board, tmp_path / "release-again")
    assert not set(tokens) & set(again["traces"]["row"]), "the defense's tokens would be a channel to the attack"


def test_inputs_can_be_replayed_and_differ_between_runs(board: Board, tmp_path: Path) -> None:
    played = released(board, tmp_path, as_recorded)
    for name, key in (("first", played.key), ("second", played.key), ("other", b"another run")):
        (tmp_path / name).mkdir()
        SCENARIO.write_inputs("attack", replace(played, key=key), tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    first, other = (pd.read_parquet(tmp_path / name / "background.parquet") for name in ("first", "other"))
    assert not set(first["row"]) & set(other["row"])


def test_an_attack_without_a_release_is_the_platforms_fault(board: Board, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inputs("attack", board, tmp_path / "in")


# What it measures -----------------------------------------------------------------------------------------------------


def test_recordings_as_they_are_can_be_linked(board: Board, tmp_path: Path) -> None:
    leaks = attacked(released(board, tmp_path, as_recorded), tmp_path)
    assert SCENARIO.metrics(board.game) == ("linkage", "likeness")
    assert leaks.values.shape == leaks.errors.shape == (2, 2)
    assert leaks.replicates.shape == (1000, 2, 2)
    assert (leaks.values > 0.5).all()
    assert leaks.detail["linkage"]["attack"] > 0.8
    assert leaks.detail["linkage"]["control"] < 0.1


def test_a_flat_line_links_nobody_over_many_deals(recordings: Path, tmp_path: Path) -> None:
    values, errors = [], []
    for seed in range(6):
        root = tmp_path / str(seed)
        leaks = attacked(released(deal_anew(recordings, seed), root, flat), root)
        values.append(leaks.values.mean(axis=0))
        errors.append(leaks.errors.mean(axis=0))
    for metric in range(2):
        mean, error = np.mean(values, axis=0)[metric], np.mean(errors, axis=0)[metric] / np.sqrt(2 * len(values))
        assert abs(mean) < 3 * error


def test_who_exchanges_the_tokens_is_found_by_likeness_and_loses_the_utility(board: Board, tmp_path: Path) -> None:
    played = released(board, tmp_path, exchanged)
    leaks = attacked(played, tmp_path).values.mean(axis=0)
    assert abs(leaks[0]) < 0.05
    assert leaks[1] > 0.5
    assert played.release is not None
    utility = SCENARIO.utility(played, played.release)
    assert utility.value < 0.65
    assert utility.facts["own_row_is_nearest"] < 0.05


def test_pointing_at_nobody_gains_nothing(board: Board, tmp_path: Path) -> None:
    played = released(board, tmp_path, as_recorded)
    _task, given = inputs("attack", played, tmp_path / "in")
    (tmp_path / "out").mkdir()
    given["background"][["row"]].assign(match=None).astype("string").to_parquet(tmp_path / "out" / "guesses.parquet")
    facts = SCENARIO.read_outputs("attack", played, tmp_path / "out", tmp_path / "result")
    assert facts["pointed"] == 0
    assert (SCENARIO.leaks(played, tmp_path / "result").values <= 0.02).all()


def test_control_persons_score_as_chance_has_it(board: Board, tmp_path: Path) -> None:
    """An attack that knows all and always points at the same row gets as much on either side."""
    played = released(board, tmp_path, as_recorded)
    (tmp_path / "result").mkdir()
    hits = np.zeros(2)
    for row in range(len(board.deal.train)):
        np.save(tmp_path / "result" / "matches.npy", np.full(len(board.deal.scored), row))
        detail = SCENARIO.leaks(played, tmp_path / "result").detail["linkage"]
        hits += detail["attack"] * detail["n_attack"], detail["control"] * detail["n_control"]
    assert hits.round().tolist() == [board.deal.scored_member.sum(), (~board.deal.scored_member).sum()]


def test_utility_is_what_the_recordings_teach_about_the_target(board: Board, tmp_path: Path) -> None:
    anchors = SCENARIO.anchors(tables.read(board.table), SCHEMA, board.deal, board.game)
    assert anchors.u0 == pytest.approx(0.5, abs=0.01)
    assert anchors.u1 > 0.85
    raw = released(board, tmp_path / "raw", as_recorded)
    assert raw.release is not None
    utility = SCENARIO.utility(raw, raw.release)
    assert utility.value == pytest.approx(anchors.u1)
    assert utility.replicates.shape == (1000,)
    assert utility.facts["mean_absolute_change"] == 0
    assert utility.facts["own_row_is_nearest"] == 1
    assert utility.facts["similarity"]["columns"] == utility.facts["similarity"]["pairs"] == 1


def test_the_reference_release_serves_a_rehearsal(board: Board, tmp_path: Path) -> None:
    SCENARIO.reference_release(board, tmp_path / "reference")
    _task, given = inputs("attack", replace(board, release=tmp_path / "reference"), tmp_path / "in")
    assert len(given["release"]) == len(board.deal.train)


# Before publishing ----------------------------------------------------------------------------------------------------


def trial(board: Board, schema: Schema) -> Trial:
    game, table = replace(board.game, schema=schema), tables.read(board.table)
    return Trial("development", 1, 2, game, table, (board.deal,), np.arange(len(table)))


def test_the_check_looks_at_both_recordings(board: Board) -> None:
    found = SCENARIO.look(trial(board, SCHEMA))
    assert {finding.level for finding in found} == {"ok"}
    assert found[0].facts == {"earlier": VALUES, "later": VALUES}
    assert SCENARIO.look_at_sample(trial(board, SCHEMA)) == []


@pytest.mark.parametrize(
    "fault", [{"role": "feature"}, {"missing": True}, {"type": "category", "categories": ("low", "high")}]
)
def test_the_check_refuses_tables_without_two_whole_recordings(board: Board, fault: dict[str, Any]) -> None:
    columns = tuple(replace(column, **fault) if column.name in EARLIER else column for column in SCHEMA.columns)
    found = SCENARIO.look(trial(board, Schema(columns, "ill")))
    assert [(finding.level, finding.code) for finding in found] == [("error", "recordings-unfit")]
    assert "quasi-identifier" in found[0].text


# Hostile outputs ------------------------------------------------------------------------------------------------------


def test_releases_become_canonical() -> None:
    columns = (
        Column("known", "number", "quasi-identifier", minimum=0, maximum=1, decimals=1),
        Column("mv", "number", "feature", minimum=-1, maximum=1, decimals=2),
        Column("rate", "integer", "feature", minimum=30, maximum=200),
    )
    values = canonical(np.array([[-0.001, 71.6], [9.0, 500.0]]), Schema(columns))
    np.testing.assert_array_equal(values, [[0.0, 72.0], [1.0, 200.0]])
    assert not np.signbit(values).any()


def test_a_release_must_hold_every_row_once_and_numbers_only(board: Board, tmp_path: Path) -> None:
    _task, given = inputs("release", board, tmp_path / "in")
    traces = given["traces"]
    unfit = {
        "rows": traces[1:],
        "more than once": pd.concat([traces[:-1], traces[:1]]),
        "not asked about": traces.assign(row=[f"r{number}" for number in range(len(traces))]),
        "missing": traces.drop(columns=LATER[0]),
        "do not belong": traces.assign(name="Ada"),
        "finite": traces.assign(**{LATER[0]: np.nan}),
    }
    for number, (sentence, table) in enumerate(unfit.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        table.to_parquet(folder / "release.parquet", index=False)
        with pytest.raises(OutputProblem, match=sentence) as problem:
            SCENARIO.read_outputs("release", board, folder, tmp_path / "result")
        assert problem.value.kind == "invalid"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(OutputProblem) as problem:
        SCENARIO.read_outputs("release", board, tmp_path / "nothing", tmp_path / "result")
    assert problem.value.kind == "missing"


def test_guesses_must_point_at_released_rows_or_nowhere(board: Board, tmp_path: Path) -> None:
    played = released(board, tmp_path, as_recorded)
    _task, given = inputs("attack", played, tmp_path / "in")
    good = guesses_of_nearest(given)
    unfit = [
        good.assign(match="r0123456789abcdef"),
        good.assign(match=given["background"]["row"]),
        good.assign(match="{" + ", ".join(given["release"]["row"][:2]) + "}"),
        good.assign(match=1.0),
        pd.concat([good, good[:1]]),
        good.drop(columns="match"),
    ]
    for number, table in enumerate(unfit):
        folder = tmp_path / f"unfit{number}"
        folder.mkdir()
        table.to_parquet(folder / "guesses.parquet", index=False)
        with pytest.raises(OutputProblem) as problem:
            SCENARIO.read_outputs("attack", played, folder, tmp_path / "result")
        assert problem.value.kind == "invalid"
        assert "r0123456789abcdef" not in problem.value.sentence


def test_a_person_left_out_of_the_guesses_is_pointed_at_nobody(board: Board, tmp_path: Path) -> None:
    played = released(board, tmp_path, as_recorded)
    _task, given = inputs("attack", played, tmp_path / "in")
    (tmp_path / "out").mkdir()
    guesses_of_nearest(given)[:10].to_csv(tmp_path / "out" / "guesses.csv", index=False)
    facts = SCENARIO.read_outputs("attack", played, tmp_path / "out", tmp_path / "result")
    assert facts == {"rows": len(board.deal.scored), "pointed": 10}


def test_what_is_collected_belongs_to_the_step() -> None:
    assert SCENARIO.collect("release") == {"tables": ["release"], "files": [], "folders": []}
    assert SCENARIO.collect("attack") == {"tables": ["guesses"], "files": [], "folders": []}
    assert SCENARIO.steps == ("release", "attack")
