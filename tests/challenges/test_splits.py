"""Deals: secret, repeatable, disjoint, by patient, and no fairer or less fair than independent coins."""

import hashlib
import hmac
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges import blind, splits
from challenges.schema import Column, Schema
from challenges.splits import Sizes
from challenges.tables import TableError
from tests.challenges.conftest import clinic

SCHEMA = Schema(
    (
        Column("age", "integer"),
        Column("days", "number", decimals=2),
        Column("diabetes", "category", "target", categories=("no", "yes")),
    ),
    "diabetes",
)
ASKED: dict[str, Any] = {
    "secret": b"secret",
    "challenge": "clinic",
    "phase": "development",
    "scope": "a",
    "seed": 0,
    "sizes": Sizes(120, 60, 280),
    "revealed": 0.2,
    "folds": 2,
}


def deal(table: pd.DataFrame | None = None, schema: Schema = SCHEMA, **changes: Any) -> splits.Deal:
    return splits.deal(clinic() if table is None else table, schema, **{**ASKED, **changes})


@given(st.binary(min_size=1, max_size=40), st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_the_coin_is_the_one_of_the_specification(secret: bytes, parts: list[str]) -> None:
    expected = hmac.new(secret, "\x1f".join(parts).encode(), hashlib.sha256).digest()[0] & 1
    assert splits.member_coin(secret, *parts) is bool(expected)


def test_a_deal_has_four_disjoint_parts_of_the_sizes_asked_for() -> None:
    table = clinic()
    found = deal(table)
    assert [len(part) for part in (found.aux, found.core, found.candidates, found.test)] == [120, 60, 280, 140]
    assert sorted([*found.aux, *found.core, *found.candidates, *found.test]) == list(range(600))
    assert (np.diff(found.queries) > 0).all()
    assert len(found.queries) == 540
    assert set(found.train) == set(found.core) | set(found.candidates[found.member])
    assert len(found.revealed) == 56
    assert sorted([*found.revealed, *found.scored]) == found.candidates.tolist()
    assert (found.fold[found.known] == -1).all()
    assert np.bincount(found.scored_fold).tolist() == [112, 112]


def test_members_are_those_whose_coin_is_one() -> None:
    found = deal(seed=7)
    coins = [splits.member_coin(b"secret", "clinic", "development", "a", "7", str(row)) for row in found.candidates]
    assert found.member.tolist() == coins


def test_the_same_question_gets_the_same_deal() -> None:
    for name, values in vars(deal()).items():
        np.testing.assert_array_equal(values, getattr(deal(), name))


@pytest.mark.parametrize("change", [{"scope": "b"}, {"seed": 1}])
def test_scopes_and_seeds_share_the_parts_but_not_the_coins(change: dict[str, Any]) -> None:
    first, second = deal(), deal(**change)
    np.testing.assert_array_equal(first.candidates, second.candidates)
    np.testing.assert_array_equal(first.test, second.test)
    assert 0.35 < (first.member == second.member).mean() < 0.65
    assert (first.known != second.known).any()


@pytest.mark.parametrize("change", [{"secret": b"other"}, {"phase": "final"}, {"challenge": "ward"}])
def test_secrets_phases_and_challenges_have_parts_of_their_own(change: dict[str, Any]) -> None:
    assert len(np.intersect1d(deal().candidates, deal(**change).candidates)) < 180


def test_coins_are_independent_and_never_exact_halves() -> None:
    members = [int(deal(seed=seed).member.sum()) for seed in range(200)]
    assert abs(np.mean(members) - 140) < 4 * np.sqrt(70 / 200)
    assert 5 < np.std(members) < 12  # binomial: 8.4


def test_being_known_says_nothing_about_membership() -> None:
    deals = [deal(seed=seed) for seed in range(100)]
    known = np.concatenate([d.known for d in deals])
    member = np.concatenate([d.member for d in deals])
    assert abs(member[known].mean() - member[~known].mean()) < 4 * np.sqrt(0.25 / known.sum())


def test_a_patient_is_in_one_part_with_one_coin_and_one_fold() -> None:
    table = clinic().assign(patient=[f"P{row // 3}" for row in range(600)])
    schema = Schema((*SCHEMA.columns, Column("patient", "category", "patient")), "diabetes")
    found = deal(table, schema, sizes=Sizes(40, 20, 94))
    patients = [set(table["patient"].iloc[rows]) for rows in (found.aux, found.core, found.candidates, found.test)]
    assert sum(len(some) for some in patients) == len(set.union(*patients)) == 200
    facts = pd.DataFrame({"member": found.member, "known": found.known, "fold": found.fold})
    assert (facts.groupby(table["patient"].to_numpy()[found.candidates]).nunique() == 1).all(axis=None)
    assert found.member[0] == splits.member_coin(
        b"secret", "clinic", "development", "a", "0", str(table["patient"].iloc[found.candidates[0]])
    )


def test_default_sizes_are_those_of_nhanes() -> None:
    assert Sizes.default(5018) == Sizes(1000, 500, 2400)
    assert Sizes.default(400) == Sizes(79, 39, 191)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sizes": Sizes(300, 100, 200)}, "need 600 patients and some more"),
        ({"sizes": Sizes(0, 100, 200)}, "at least one"),
        ({"revealed": 1.0}, "less than 1"),
        ({"revealed": 0.99}, "Too few candidates"),
        ({"folds": 0}, "At least one fold"),
        ({"table": clinic(39)}, "39 patients; at least 40"),
    ],
)
def test_impossible_deals_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        deal(**changes)


def test_tokens_are_distinct_texts_that_hang_on_the_key() -> None:
    names = splits.tokens(b"key", 5000)
    assert len(set(names)) == 5000
    assert all(len(name) == 17 and name.startswith("r") for name in names)
    assert names == splits.tokens(b"key", 5000)
    assert not set(names) & set(splits.tokens(b"kez", 5000))
    assert splits.tokens(b"key", 0) == []


def test_shuffles_are_permutations_without_a_trace_of_the_order() -> None:
    order = splits.shuffle(b"key", 5000)
    assert sorted(order) == list(range(5000))
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.06


# The blind control ----------------------------------------------------------------------------------------


def _standard_errors_above_chance(found: blind.Blind) -> float:
    """In those of the Mann-Whitney statistic."""
    members, others = found.members, found.nonmembers
    return (found.auc - 0.5) / math.sqrt((members + others + 1) / (12 * members * others))


def test_the_blind_classifier_is_at_chance_on_honest_coins_and_sees_dishonest_ones() -> None:
    table = clinic()
    honest = [blind.classifier(table, SCHEMA, deal(table, scope=str(scope))) for scope in range(10)]
    z = np.array([_standard_errors_above_chance(found) for found in honest])
    assert np.abs(z).max() < 4
    assert abs(z.mean()) < 4 / np.sqrt(10)
    assert (np.abs(z) <= 3).sum() >= 9

    found = deal(table)
    old = replace(found, member=table["age"].to_numpy()[found.candidates] > 50)
    assert _standard_errors_above_chance(blind.classifier(table, SCHEMA, old)) > 4
