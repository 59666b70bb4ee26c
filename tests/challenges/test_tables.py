"""What an organiser may upload, what becomes of it, and how everything else is refused."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from challenges import tables, untrusted
from challenges.schema import Column, Schema
from challenges.tables import Role, TableError
from tests.challenges.conftest import ROWS, clinic

Write = Callable[..., Path]


def test_a_csv_file_is_profiled(write_csv: Write) -> None:
    found = tables.profile(write_csv(clinic().to_csv(index=False)), ".csv", target="diabetes")

    schema = found.schema
    assert found.rows == ROWS
    assert schema.task == "binary"
    assert schema.labels == ("no", "yes")
    assert schema.column("age") == Column("age", "integer", minimum=20, maximum=80)
    assert schema.column("glucose").type == "number"
    assert schema.column("glucose").decimals == 1
    assert schema.column("glucose").missing
    assert schema.column("visits") == Column("visits", "integer", minimum=0, maximum=8, missing=True)
    assert schema.column("smoking").categories == ("current", "former", "never")
    summary = {column["name"]: column for column in found.columns}
    assert summary["sex"]["counts"] == clinic()["sex"].value_counts().to_dict()
    assert summary["age"]["minimum"] == clinic()["age"].min()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("semicolons and decimal commas", {"sep": ";", "decimal": ","}),
        ("tabs", {"sep": "\t"}),
        ("a byte order mark", {"encoding": "utf-8-sig"}),
        ("a column of row numbers without a name", {"index": True}),
    ],
)
def test_dialects_of_csv_mean_the_same(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    clinic().to_csv(tmp_path / "plain.csv", index=False)
    clinic().to_csv(tmp_path / "dialect.csv", **{"index": False, **options})

    plain = tables.profile(tmp_path / "plain.csv", ".csv", target="diabetes")
    dialect = tables.profile(tmp_path / "dialect.csv", ".csv", target="diabetes")

    assert dialect.schema == plain.schema
    assert dialect.columns == plain.columns


def test_csv_and_parquet_become_the_same_canonical_file(tmp_path: Path) -> None:
    clinic().to_csv(tmp_path / "a.csv", index=False)
    clinic().astype({"sex": "category"}).to_parquet(tmp_path / "a.parquet")
    schema = tables.profile(tmp_path / "a.csv", ".csv", target="stage").schema
    assert tables.profile(tmp_path / "a.parquet", ".parquet", target="stage").schema == schema

    first = tables.write_canonical(tmp_path / "a.csv", schema, tmp_path / "first")
    second = tables.write_canonical(tmp_path / "a.parquet", schema, tmp_path / "second")

    assert first == second == hashlib.sha256((tmp_path / "first").read_bytes()).hexdigest()


def test_the_canonical_file_holds_values_and_nothing_else(tmp_path: Path) -> None:
    clinic().to_parquet(tmp_path / "a.parquet")
    schema = tables.profile(tmp_path / "a.parquet", ".parquet", target="diabetes").schema
    tables.write_canonical(tmp_path / "a.parquet", schema, tmp_path / "canonical")

    arrow = pq.read_schema(tmp_path / "canonical")
    assert arrow.metadata is None
    assert [str(arrow.field(name).type) for name in ("age", "sex", "glucose", "visits", "diabetes")] == [
        "int64", "string", "double", "int64", "string",
    ]  # fmt: skip
    frame = tables.read(tmp_path / "canonical")
    expected = clinic()
    assert frame["visits"].isna().equals(expected["visits"].isna())
    assert frame["smoking"].isna().equals(expected["smoking"].isna())
    np.testing.assert_allclose(frame["glucose"], expected["glucose"])


def test_reading_is_cached_but_notices_a_new_file(tmp_path: Path) -> None:
    schema = Schema((Column("x", "number", decimals=1),))
    path = tmp_path / "x.parquet"
    tables.write_frame(pd.DataFrame({"x": [1.0]}), schema, path)
    frame = tables.read(path)
    frame["x"] = 9.0
    assert tables.read(path)["x"].tolist() == [1.0]
    tables.write_frame(pd.DataFrame({"x": [1.5, 2.5]}), schema, path)
    assert tables.read(path)["x"].tolist() == [1.5, 2.5]


def test_profile_and_schema_survive_json(write_csv: Write) -> None:
    path = write_csv(clinic().to_csv(index=False))
    found = tables.profile(path, ".csv", target="days", roles={"age": "quasi-identifier", "glucose": "secret"})

    again = tables.Profile.from_json(json.loads(json.dumps(found.to_json())))

    assert again == found
    assert again.schema.column("age").role == "quasi-identifier"
    assert again.schema.task == "regression"


def test_a_role_for_columns_whose_names_begin_alike(write_csv: Write) -> None:
    days = {f"day{day}_{hour}": [day, hour, day + hour] for day in (1, 2) for hour in (0, 1)}
    path = write_csv(pd.DataFrame({**days, "day1.note": [1, 2, 4], "y": ["a", "b", "a"]}).to_csv(index=False))
    roles: dict[str, Role] = {"day1_1": "secret", "day1_*": "quasi-identifier"}
    schema = tables.profile(path, ".csv", target="y", roles=roles).schema
    assert {column.name: column.role for column in schema.columns} == {
        "day1_0": "quasi-identifier",
        "day1_1": "secret",
        "day2_0": "feature",
        "day2_1": "feature",
        "day1.note": "feature",
        "y": "target",
    }


def _column(write_csv: Write, values: Any, **more: Any) -> Column:
    """What is published of a column of these values."""
    frame = pd.DataFrame({"x": values, "other": np.arange(len(values)), "y": np.arange(len(values)) % 2, **more})
    path = write_csv(frame.to_csv(index=False))
    return tables.profile(path, ".csv", target="y", patient="p" if "p" in more else None).schema.column("x")


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([15.3, *np.round(np.linspace(30, 150, 400), 1), 242.6], (0, 250)),  # weights
        (range(20, 81), (10, 90)),  # ages
        (range(21, 80), (20, 80)),
        (range(1, 13), (0, 15)),  # days in hospital: 0 is no patient's, but nobody stays fewer
        (range(9), (0, 10)),
        ([n / 10 for n in range(4, 14)], (0, 1.5)),
        ([-n for n in range(3, 20)], (-20, 0)),
        (range(1931, 1999), (1930, 2000)),  # years of birth
        ([4.5, 100.5], (0, 110)),
        ([36.6, 36.6], (36.5, 37)),
        (range(-5, 6), (-10, 10)),
    ],
)
def test_bounds_are_round_numbers_beyond_a_single_patients_value(
    write_csv: Write, values: Any, bounds: tuple[float, float]
) -> None:
    values = list(values)
    column = _column(write_csv, values)
    assert (column.minimum, column.maximum) == bounds
    assert column.minimum is not None
    assert column.maximum is not None
    assert column.minimum < min(values) or column.minimum == 0
    assert column.maximum > max(values) or column.maximum == 0


def test_bounds_that_many_patients_share_stay_as_they_are(write_csv: Write) -> None:
    few, many = [20, *range(40, 60), 80, 80, 80, 80], [20] * 5 + [*range(40, 60)] + [80] * 5
    assert (_column(write_csv, few).minimum, _column(write_csv, few).maximum) == (10, 90)
    assert (_column(write_csv, many).minimum, _column(write_csv, many).maximum) == (20, 80)
    assert (_column(write_csv, [0, 1] * 10).minimum, _column(write_csv, [0, 1] * 10).maximum) == (0, 1)


def test_what_is_published_comes_from_the_rows_that_are_kept(write_csv: Write, tmp_path: Path) -> None:
    """Neither rows without a target nor a patient's further rows show in ranges, categories and gaps."""
    frame = clinic(200).assign(patient=range(200), diabetes=lambda table: table["diabetes"].astype(object))
    frame["smoking"] = frame["smoking"].fillna("never")
    odd = frame.head(2).assign(age=[119, 118], smoking=["pipe", None], rash=["yes", "no"])
    odd.loc[0, "diabetes"] = None
    path = write_csv(pd.concat([frame.assign(rash=None), odd]).to_csv(index=False))
    plain = tables.profile(write_csv(frame.to_csv(index=False), "plain.csv"), ".csv", "diabetes", "patient").schema

    found = tables.profile(path, ".csv", target="diabetes", patient="patient")

    assert found.schema == plain
    assert any("“rash” is empty in the rows that are kept" in note for note in found.notes)
    tables.write_canonical(path, found.schema, tmp_path / "canonical.parquet")
    assert tables.read(tmp_path / "canonical.parquet")["age"].max() <= 80


def test_a_class_that_only_left_out_rows_have_is_none(write_csv: Write) -> None:
    path = write_csv("p,x,y\n" + "".join(f"{n},{n},no\n{n},{n + 50},yes\n" for n in range(50)))
    with pytest.raises(TableError, match="one class only"):
        tables.profile(path, ".csv", target="y", patient="p")


@pytest.mark.parametrize(("scale", "decimals"), [(1e-4, 5), (1e-2, 3), (1, 1)])
def test_small_numbers_keep_their_digits(write_csv: Write, scale: float, decimals: int) -> None:
    values = np.array([0.4, 0.5, 0.7, 0.9, 0.8] * 20) * scale
    column = _column(write_csv, values)
    assert (column.type, column.decimals) == ("number", decimals)
    assert (column.minimum, column.maximum) == pytest.approx((0.4 * scale, 0.9 * scale))


def test_numbers_too_small_for_six_decimals_are_refused(write_csv: Write) -> None:
    creatinine = np.random.default_rng(0).uniform(4e-5, 9.5e-5, 300)
    with pytest.raises(TableError, match=r"“x” holds numbers so small .* another unit"):
        _column(write_csv, creatinine)
    assert _column(write_csv, creatinine * 1e6).decimals == 6
    assert _column(write_csv, np.float32(creatinine * 1e6).round(1).astype(np.float64)).decimals == 1


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize(
    "cells", [["1,234", "12,500", "999"], ["1,234,567", "2,000,000", "5"], ["1,234.5", "7.5", "8"]]
)
def test_thousands_are_not_taken_for_decimals(write_csv: Write, delimiter: str, cells: list[str]) -> None:
    lines = [f"{cells[n % 3]}{delimiter}{n % 2}" for n in range(60)]
    with pytest.raises(TableError, match="“cells” every comma stands before three digits"):
        tables.profile(write_csv("\n".join([f"cells{delimiter}y", *lines])), ".csv", target="y")


def test_three_decimals_behind_a_comma_are_read_where_they_cannot_be_thousands(write_csv: Write) -> None:
    for cells in (["0,125", "1,250", "2,375"], ["1,234", "1,5", "2"]):
        path = write_csv("x;n;y\n" + "".join(f"{cells[n % 3]};{n};{n % 2}\n" for n in range(60)))
        assert tables.profile(path, ".csv", target="y").schema.column("x").decimals == 3


# Targets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "expected", "labels"),
    [
        ([0, 1], None, "binary", ("0", "1")),
        ([0.0, 1.0, np.nan], None, "binary", ("0", "1")),
        ([True, False], None, "binary", ("False", "True")),
        ([2, 10, 1], None, "multiclass", ("1", "2", "10")),
        (range(40), None, "regression", ()),
        (range(40), "multiclass", "multiclass", tuple(str(n) for n in range(40))),
        ([2, 10, 1], "regression", "regression", ()),
        ([1.5, 2.5, 0.25], None, "regression", ()),
        (["<=50K", ">50K"], None, "binary", ("<=50K", ">50K")),
    ],
)
def test_the_task_follows_from_the_target(
    write_csv: Write, values: Any, task: Any, expected: str, labels: tuple[str, ...]
) -> None:
    rows = 120
    frame = pd.DataFrame({"x": np.arange(rows) / 7, "y": (list(values) * rows)[:rows]})
    schema = tables.profile(write_csv(frame.to_csv(index=False)), ".csv", target="y", task=task).schema
    assert schema.task == expected
    assert schema.labels == labels


def test_booleans_of_parquet_become_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(60) / 7, "smoker": [True, False, None] * 20, "y": [True, False] * 30})
    frame.to_parquet(tmp_path / "b.parquet")
    schema = tables.profile(tmp_path / "b.parquet", ".parquet", target="y").schema
    assert schema.labels == ("false", "true")
    assert schema.column("smoker").categories == ("false", "true")
    assert schema.column("smoker").missing


def test_rows_without_a_target_are_left_out_and_noted(write_csv: Write) -> None:
    path = write_csv("x,y\n" + "".join(f"{n},{n % 2 if n % 5 else ''}\n" for n in range(100)))
    found = tables.profile(path, ".csv", target="y")
    assert found.rows == 80
    assert any("20 rows have no value of the target" in note for note in found.notes)
    assert not found.schema.target_column.missing
    tables.write_canonical(path, found.schema, path.with_suffix(".parquet"))
    assert tables.read(path.with_suffix(".parquet"))["y"].tolist()[:4] == ["1", "0", "1", "0"]


def test_without_a_target_a_profile_is_possible_but_no_task(write_csv: Write) -> None:
    schema = tables.profile(write_csv("x,y\n1,2\n3,4\n"), ".csv").schema
    assert [column.role for column in schema.columns] == ["feature", "feature"]
    with pytest.raises(TableError, match="No target column is chosen yet"):
        _ = schema.task


# Rows -----------------------------------------------------------------------------------------------------------------


def test_duplicates_are_counted_and_removed(write_csv: Write) -> None:
    frame = clinic(100)
    path = write_csv(pd.concat([frame, frame.head(7)]).to_csv(index=False))
    found = tables.profile(path, ".csv", target="diabetes")
    assert (found.rows, found.duplicates) == (100, 7)
    assert any("7 rows occur more than once" in note for note in found.notes)
    tables.write_canonical(path, found.schema, path.with_suffix(".parquet"))
    assert len(tables.read(path.with_suffix(".parquet"))) == 100


def test_of_a_patients_rows_the_first_is_kept(write_csv: Write) -> None:
    frame = clinic(100).assign(patient=[f"P{n // 2}" for n in range(100)])
    path = write_csv(frame.to_csv(index=False))
    found = tables.profile(path, ".csv", target="diabetes", patient="patient")
    assert (found.rows, found.duplicates) == (50, 50)
    assert found.schema.patient_id == "patient"
    assert "patient" not in [column.name for column in (*found.schema.features, *found.schema.shared)]
    tables.write_canonical(path, found.schema, path.with_suffix(".parquet"))
    assert tables.read(path.with_suffix(".parquet"))["age"].tolist() == frame["age"].tolist()[::2]


@pytest.mark.parametrize(
    ("column", "note"),
    [
        ([7] * 100, "same value in every row"),
        (list(range(1000, 1100)), "looks like an identifier"),
        ([""] * 100, "is empty: it is left out"),
        (["rare"] + ["usual"] * 99, "fewer than 5 patients"),
    ],
)
def test_odd_columns_are_noted(write_csv: Write, column: list[Any], note: str) -> None:
    path = write_csv(clinic(100).assign(odd=column).to_csv(index=False))
    notes = tables.profile(path, ".csv", target="diabetes").notes
    assert [n for n in notes if note in n and "“odd”" in n], notes


# Refusals -------------------------------------------------------------------------------------------------------------

BODY = "".join(f"{n},{n % 2}\n" for n in range(100))

REFUSED = {
    "an empty file": ("", "The file is empty"),
    "no rows": ("x,y\n", "has no rows"),
    "two columns of one name": ("x,y,x\n1,2,3\n", "Two columns are called “x”"),
    "the reserved name row": ("row,y\n" + BODY, "“row” is reserved"),
    "the reserved name Member": ("Member,y\n" + BODY, "“Member” is reserved"),
    "markup in a name": ("<b>x</b>,y\n" + BODY, "characters that cannot be used"),
    "a formula as a name": ("=1+1,y\n" + BODY, "characters that cannot be used"),
    "a very long name": ("x" * 70 + ",y\n" + BODY, "longer than 64 characters"),
    "a column without a name": (",y\n" + BODY.replace("1,1", "x,1"), "Column 1 has no name"),
    "one class only": ("x,y\n" + "".join(f"{n},1\n" for n in range(100)), "one class only"),
    "junk in a column of numbers": ("x,y\n" + BODY + "12 kg,1\n", r"column of numbers, but 1 of .* '12 kg' in row 101"),
    "infinity": ("x,y\n" + BODY + "inf,1\n", "column of numbers, but 1"),
    "a number beyond all measure": ("x,y\n" + BODY + "1e999,1\n", "infinite values"),
    "identifiers of 20 digits": ("x,y\n" + BODY + "12345678901234567890,1\n", "more than 15 digits"),
    "free text": ("x,y\n" + "".join(f"note {n},{n % 2}\n" for n in range(100)), "“x” holds 100 different texts"),
    "dates": ("x,y\n" + "".join(f"2020-01-{n % 28 + 1:02},{n % 2}\n" for n in range(99)), "“x” holds dates"),
    "German dates": ("x,y\n" + "".join(f"{n % 28 + 1}.1.2020,{n % 2}\n" for n in range(99)), "“x” holds dates"),
    "a line with too many cells": ("x,y\n1,0\n2,1,3\n", "Line 3 has 3 cells, but the first line names 2"),
    "a line with too few cells": ("x,y\n1,0\n2\n", "Line 3 has 1 cells, but the first line names 2"),
    "an open quotation mark": ('x,y\n1,0\n"2,1\n', "Line 3 has 1 cells"),
    "Latin-1": ("größe,y\n1,0\n".encode("latin-1"), "not coded as UTF-8"),
    "Latin-1 further down": (("x,y\n" + BODY + "ä,1\n").encode("latin-1"), "not coded as UTF-8"),
    "UTF-16": ("x,y\n1,0\n".encode("utf-16"), "UTF-16"),
    "a spreadsheet": (b"PK\x03\x04" + b"\0" * 50, "spreadsheet"),
    "zero bytes": (b"x,y\0\n1,0\n", "zero bytes|characters that cannot"),
    "no other column than the target": ("y\n" + "0\n1\n" * 50, "no column to learn from"),
    "a line break within a category": ('x,y\n"a\nb",1\n' + 'c,0\nd,1\n' * 9, "line breaks"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_csv_files_are_refused_with_a_sentence(write_csv: Write, name: str) -> None:
    content, sentence = REFUSED[name]
    with pytest.raises(TableError, match=sentence) as refusal:
        tables.profile(write_csv(content), ".csv", target="y")
    assert re.search(r"[.)]$", str(refusal.value)), "a sentence ends with a full stop"


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"target": "nothing"}, "no column “nothing”"),
        ({"target": "diabetes", "patient": "nobody"}, "no column “nobody”"),
        ({"target": "diabetes", "patient": "diabetes"}, "cannot be the patient id as well"),
        ({"target": "diabetes", "roles": {"nowhere": "secret"}}, "no column “nowhere”"),
        ({"target": "diabetes", "roles": {"nowhere*": "secret"}}, "No column of the table fits “nowhere\\*”"),
        ({"target": "diabetes", "roles": {"age": "king"}}, "unknown role"),
        ({"target": "diabetes", "task": "regression"}, "holds texts"),
        ({"target": "stage", "task": "binary"}, "3 classes"),
        ({"target": "age", "task": "multiclass"}, "at most 50"),
        ({"target": "diabetes", "task": "ranking"}, "unknown"),
        ({"target": "diabetes", "patient": "smoking"}, "empty in some rows"),
    ],
)
def test_choices_that_do_not_fit_are_refused(write_csv: Write, choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        tables.profile(write_csv(clinic().to_csv(index=False)), ".csv", **choices)


def _parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([[1], [2]]), "neither numbers nor texts"),
        (pa.array([{"a": 1}, {"a": 2}]), "neither numbers nor texts"),
        (pa.array([b"a", b"b"]), "neither numbers nor texts"),
        (pa.array([1, 2], type=pa.timestamp("s")), "dates or times"),
        (pa.array([1.0, float("inf")]), "infinite"),
        (pa.array([1, 2**62]), "more than 15 digits"),
    ],
)
def test_parquet_columns_of_other_types_are_refused(tmp_path: Path, column: pa.Array, sentence: str) -> None:
    path = _parquet(tmp_path / "odd.parquet", pa.table({"x": column, "y": pa.array(["0", "1"])}))
    with pytest.raises(TableError, match=sentence):
        tables.profile(path, ".parquet", target="y")


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")
    with pytest.raises(TableError, match="no readable Parquet"):
        tables.profile(path, ".parquet")
    with pytest.raises(TableError, match="Only CSV and Parquet"):
        tables.profile(path, ".xlsx")
    with pytest.raises(TableError, match="although its name says otherwise"):
        tables.profile(path, ".csv")


def test_a_parquet_bomb_is_weighed_before_it_is_read(tmp_path: Path) -> None:
    bomb = pa.table({"x": pa.array(np.zeros(3_000_000)), "y": pa.array(np.zeros(3_000_000))})
    path = _parquet(tmp_path / "bomb.parquet", bomb)
    assert path.stat().st_size < 100_000
    with pytest.raises(TableError, match="more than 1,000,000 rows"):
        tables.profile(path, ".parquet")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("x,y\n1,2\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(TableError, match="not a regular file"):
        untrusted.read_raw(tmp_path / "link.csv", ".csv")


def test_a_second_file_must_fit_the_schema(tmp_path: Path, write_csv: Write) -> None:
    schema = tables.profile(write_csv(clinic().to_csv(index=False)), ".csv", target="diabetes").schema
    for change, sentence in (
        ({"sex": "diverse"}, "not among those declared"),
        ({"age": 300}, "outside the declared range"),
        ({"age": "old"}, "must hold numbers"),
    ):
        other = write_csv(clinic(100).assign(**change).to_csv(index=False), "other.csv")
        with pytest.raises(TableError, match=sentence):
            tables.write_canonical(other, schema, tmp_path / "other.parquet")
    with pytest.raises(TableError, match="lacks the column “age”"):
        tables.write_canonical(
            write_csv(clinic(100).drop(columns="age").to_csv(index=False), "other.csv"), schema, tmp_path / "o.parquet"
        )


def test_codes_with_leading_zeros_stay_texts(write_csv: Write) -> None:
    path = write_csv("code,x,y\n" + "".join(f"0{n % 7},{n},{n % 2}\n" for n in range(100)))
    assert tables.profile(path, ".csv", target="y").schema.column("code").categories[0] == "00"
