"""Cells of anonymised tables: what is written is read again, what means nothing is refused, and nothing crashes."""

import math
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenges.generalised import Cell, Cells, Choice, Interval, decimals, longest, parse, render, value
from challenges.schema import Column, TableError

AGE = Column("age", "integer", minimum=20, maximum=80)
WEIGHT = Column("weight", "number", minimum=0, maximum=250, decimals=1)
SEX = Column("sex", "category", categories=("female", "male"))
ORIGIN = Column("origin", "category", categories=("a", "b, c", 'say "d"', "{e}", "b", " f ", "{a, b}", "{ a, b}"))

labels = st.text(st.sampled_from(string.ascii_letters + ' ,"{}[]()é\U0001f600'), min_size=1, max_size=12).filter(
    str.strip
)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(["integer", "number", "category"]))
    if kind == "category":
        return Column("x", "category", categories=tuple(draw(st.lists(labels, min_size=1, max_size=8, unique=True))))
    low = draw(st.integers(-1000, 1000))
    places = draw(st.integers(0, 4)) if kind == "number" else None
    return Column("x", kind, minimum=low, maximum=low + draw(st.integers(1, 2000)), decimals=places)


@st.composite
def cells(draw: st.DrawFn, column: Column) -> Cell:
    if draw(st.integers(0, 9)) == 0:
        return None
    if column.type == "category":
        positions = st.sets(st.integers(0, len(column.categories) - 1), min_size=1)
        return Choice(tuple(sorted(draw(positions))))
    assert column.minimum is not None
    assert column.maximum is not None
    step = 10 ** decimals(column)
    grid = st.integers(int(column.minimum) * step, int(column.maximum) * step)
    low, high = sorted([draw(grid), draw(grid)])
    ends = (True, True) if high - low < 2 else (draw(st.booleans()), draw(st.booleans()))
    return Interval(low / step, high / step, *(ends if low < high else (True, True)))


@given(st.data())
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    column = data.draw(columns())
    cell = data.draw(cells(column))
    text = render(cell, column)
    assert parse(text, column) == cell
    assert render(parse(text, column), column) == text
    assert text is None or len(text) <= longest(column)


@given(st.data(), st.text(max_size=200) | st.text(st.sampled_from('0123456789.,-+eE[](){} "ab'), max_size=40))
def test_any_text_is_a_cell_or_refused(data: st.DataObject, text: str) -> None:
    column = data.draw(columns())
    try:
        cell = parse(text, column)
    except TableError:
        return
    assert parse(render(cell, column), column) == cell
    if isinstance(cell, Interval):
        assert column.minimum is not None
        assert column.maximum is not None
        # Rounding to the column's decimals may step over a bound that is no multiple of them; these are whole.
        assert column.minimum <= cell.low <= cell.high <= column.maximum
    if isinstance(cell, Choice):
        assert set(cell.positions) <= set(range(len(column.categories)))


@given(st.floats())
def test_any_number_is_a_cell_or_refused(number: float) -> None:
    if math.isnan(number):
        assert value(number, WEIGHT) is None
    elif 0 <= number <= 250:
        assert value(number, WEIGHT) == Interval(round(number, 1), round(number, 1))
    else:
        with pytest.raises(TableError, match="weight"):
            value(number, WEIGHT)


@pytest.mark.parametrize(
    ("text", "column", "canonical"),
    [
        ("34", AGE, "34"),
        (" 34.0 ", AGE, "34"),
        ("34.6", AGE, "35"),
        ("[20,30)", AGE, "[20, 30)"),
        ("( 20 , 30 ]", AGE, "(20, 30]"),
        ("[20, 20]", AGE, "20"),
        ("2e1", AGE, "20"),
        ("", AGE, None),
        ("  ", AGE, None),
        (None, AGE, None),
        ("-0.0", WEIGHT, "0.0"),
        ("81.27", WEIGHT, "81.3"),
        ("[60.04, 70.06]", WEIGHT, "[60.0, 70.1]"),
        ("[60.01, 60.04)", WEIGHT, "60.0"),
        ("female", SEX, "female"),
        ("{female}", SEX, "female"),
        ("{male,female}", SEX, "{female, male}"),
        ('{"male", female}', SEX, "{female, male}"),
        ("{a}", ORIGIN, "a"),
        ('{a, "b, c"}', ORIGIN, '{a, "b, c"}'),
        ("{a, b}", ORIGIN, "{a, b}"),
        ('{"a", b}', ORIGIN, "{  a, b}"),
        ('{" f ", "say ""d""", "{e}"}', ORIGIN, '{"say ""d""", "{e}", " f "}'),
    ],
)
def test_one_meaning_is_written_in_one_way(text: str | None, column: Column, canonical: str | None) -> None:
    assert render(parse(text, column), column) == canonical


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("19", AGE),
        ("[19, 30)", AGE),
        ("[20, 81]", AGE),
        ("[30, 20]", AGE),
        ("(20, 21)", AGE),
        ("[20 30]", AGE),
        ("[20, 30", AGE),
        ("20-30", AGE),
        ("{20, 30}", AGE),
        ("[20, 30, 40]", AGE),
        ("nan", AGE),
        ("inf", AGE),
        ("[-inf, 30]", AGE),
        ("2_5", AGE),
        ("٣٤", AGE),  # digits, but not ours
        ("1e99", AGE),
        ("[" * 50 + "20", AGE),
        ("3" * 200, AGE),
        ("Female", SEX),
        ("{female, other}", SEX),
        ("{female, female}", SEX),
        ("{}", SEX),
        ("{female", SEX),
        ("female, male", SEX),
        ('{"female, male}', SEX),
        ("{female,\nmale}", SEX),
        ("[female, male]", SEX),
        ("x" * 10_000, SEX),
    ],
)
def test_what_means_nothing_is_refused(text: str, column: Column) -> None:
    with pytest.raises(TableError) as refused:
        parse(text, column)
    assert f"“{column.name}”" in str(refused.value)
    if len(text) > 9:
        assert text not in str(refused.value)


def test_a_refusal_quotes_nothing_that_was_written() -> None:
    for text, column in (("4711", AGE), ("[4711, 4712]", AGE), ("canary", SEX), ("{canary, male}", SEX)):
        with pytest.raises(TableError) as refused:
            parse(text, column)
        assert "4711" not in str(refused.value)
        assert "canary" not in str(refused.value)


# What a model reads out of a cell -------------------------------------------------------------------------------------


def read(texts: list[str | None], column: Column) -> Cells:
    return Cells.from_texts(texts, np.arange(len(texts)), column)


@pytest.mark.parametrize(
    ("text", "mean"),
    [("34", 34), ("[20, 30)", 24.5), ("[20, 30]", 25), ("(20, 30]", 25.5), ("(20, 22)", 21), ("[20, 21)", 20)],
)
def test_an_interval_is_expected_to_be_the_mean_of_the_whole_numbers_in_it(text: str, mean: float) -> None:
    (expected,) = read([text], AGE).expected[0]
    assert expected == mean
    low, high = read([text], AGE).bounds[0]
    assert expected == np.mean(np.arange(low, high + 1))


def test_expected_values_of_other_cells() -> None:
    assert read(["[60.0, 70.0)"], WEIGHT).expected[0, 0] == pytest.approx(64.95)
    assert np.isnan(read([None], WEIGHT).expected).all()
    np.testing.assert_array_equal(read(["female", "{female, male}", None], SEX).expected, [[1, 0], [0.5, 0.5], [0, 0]])


def test_draws_are_alike_among_all_that_a_cell_allows() -> None:
    random = np.random.default_rng(0)
    texts = ["[20, 30)", "34", None]
    ages = Cells.from_texts(texts, np.repeat([0, 1, 2], 10_000), AGE).draw(random).reshape(3, -1)
    seen, counts = np.unique(ages[0], return_counts=True)
    assert seen.tolist() == list(range(20, 30))
    assert abs(counts - 1000).max() < 5 * math.sqrt(900)
    assert (ages[1] == 34).all()
    assert np.isnan(ages[2]).all()
    origins = Cells.from_texts(['{a, "b, c", b}', "b", None], np.repeat([0, 1, 2], 9_000), ORIGIN).draw(random)
    chosen, counts = np.unique(origins[:9000].astype(str), return_counts=True)
    assert chosen.tolist() == ["a", "b", "b, c"]
    assert abs(counts - 3000).max() < 5 * math.sqrt(2000)
    assert set(origins[9000:18000]) == {"b"}
    assert set(origins[18000:]) == {None}


@given(st.data())
def test_a_draw_lies_in_its_cell(data: st.DataObject) -> None:
    column = data.draw(columns())
    cell = data.draw(cells(column))
    drawn: Any = Cells(column, (cell,), np.zeros(5, dtype=int)).draw(
        np.random.default_rng(data.draw(st.integers(0, 99)))
    )
    for one in drawn.tolist():
        if isinstance(cell, Interval):
            low, high = Cells(column, (cell,), np.zeros(1, dtype=int)).bounds[0]
            assert low <= one <= high
            assert parse(render(value(one, column), column), column) == value(one, column)
        elif cell is None:
            assert one is None or math.isnan(one)
        else:
            assert column.categories.index(one) in cell.positions


def test_cells_that_mean_the_same_are_one() -> None:
    cells = Cells.from_texts(["34", " 34.0", "[34, 34]", "{bad", ""][:3], np.array([0, 1, 2, -1]), AGE)
    assert cells.distinct == (Interval(34, 34), None)
    assert cells.texts == ["34", "34", "34", None]
    assert cells.plain.tolist() == [True, True, True, False]
    assert cells.empty.tolist() == [False, False, False, True]
    assert cells.take(np.array([3, -1, 0])).texts == [None, None, "34"]
