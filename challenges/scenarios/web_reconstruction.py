"""Published AnoMed images in `table-reconstruction`: anonymizers of tables, deanonymizers that look people up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from challenges import anonymised, tables
from challenges.generalised import Cells
from challenges.scenarios import web
from challenges.scenarios.anonymised_outputs import check_text, sources
from challenges.scenarios.base import Board, Images, require
from challenges.scenarios.containers import names_of, order_of, people, write_shuffled
from challenges.scenarios.table_release import (
    RELEASE,
    SCHEME,
    SCHEME_BYTES,
    as_guessed,
    keep_guesses,
    quasi_identifiers,
    read_scheme,
    secrets,
    write_release,
)
from challenges.scenarios.web_answers import heard, read_exchange
from challenges.scenarios.web_cells import caps_for, published, read_published
from challenges.schema import TableError
from challenges.splits import Positions


class WebReconstruction(Images):
    """The web contract of `table-reconstruction`. The same releases and results as by contract anomed/1."""

    def collect(self, step: str) -> dict[str, list[str]]:
        """What was said."""
        return web.collected(web.SAID)

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes the plan and what is served. Raises LookupError for an unknown step."""
        {"release": self._write_table, "attack": self._write_attack}[step](board, folder)

    def _write_table(self, board: Board, folder: Path) -> None:
        schema, train = board.game.schema, board.deal.train
        write_shuffled(board, folder, "table", people(board, train, schema.shared))
        most = caps_for(schema.shared, len(train)).size
        web.write_plan(
            board,
            folder,
            serve={"/data/anonymizer/leaky": {"file": "table.parquet"}},
            record={
                "/utility/anonymizer": {
                    "limit": most + SCHEME_BYTES,
                    "to": None,
                    "parts": ["anon_data", "anon_scheme"],
                }
            },
            calls=[
                {"post": "/fit"},
                {"get": "/anon_data", "save": f"{web.SAID}/anon_data", "limit": most},
                {"get": "/anon_data_scheme", "save": f"{web.SAID}/anon_data_scheme", "limit": SCHEME_BYTES},
            ],
        )

    def _write_attack(self, board: Board, folder: Path) -> None:
        release, deal, schema = require(board.release), board.deal, board.game.schema
        _write_indexed(board, folder, "background", people(board, deal.scored, quasi_identifiers(schema)))
        _write_indexed(board, folder, "aux", people(board, deal.aux, schema.shared))
        tables.write_arrow(published(anonymised.read(release / RELEASE, schema), schema), folder / RELEASE)
        (folder / SCHEME).write_bytes((release / SCHEME).read_bytes())
        web.write_plan(
            board,
            folder,
            serve={
                "/data/deanonymizer/background-knowledge": {"file": "background.parquet"},
                "/data/deanonymizer/auxiliary": {"file": "aux.parquet"},
            },
            record={
                "/utility/deanonymizer": {
                    "limit": caps_for(schema.shared, len(deal.scored)).size,
                    "to": f"{web.SAID}/guesses",
                }
            },
            target={"/anon_data": {"file": RELEASE}, "/anon_data_scheme": {"file": SCHEME}},
            calls=[{"post": "/fit"}, {"post": "/evaluate"}],
        )

    # What is made of what they say

    def read_account(self, told: Path) -> dict[str, Any]:
        """The same for an exchange that failed."""
        return read_exchange(told)

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns the table and the scheme into their canonical forms, guesses into `guesses.parquet`."""
        result.mkdir(parents=True, exist_ok=True)
        read = {"release": self._read_release, "attack": self._read_guesses}[step]
        return {**read(board, collected / web.SAID, result), "web": read_exchange(collected / web.EXCHANGE)}

    def _read_release(self, board: Board, said: Path, result: Path) -> dict[str, Any]:
        schema, rows = board.game.schema, len(board.deal.train)
        path, what = said / "anon_data", "The answer to GET /anon_data"
        with heard(path, what):
            table, _index = read_published(path, schema, schema.shared, caps_for(schema.shared, rows))
            if not len(table[schema.target]):
                raise TableError("There are no rows; at least one is needed.")
        check_text(table, rows, what)
        scheme = read_scheme(said / "anon_data_scheme", "The answer to GET /anon_data_scheme")
        write_release(table, scheme, board, result)
        return {"rows": len(table[schema.target]), "scheme": scheme}

    def _read_guesses(self, board: Board, said: Path, result: Path) -> dict[str, Any]:
        schema, number = board.game.schema, len(board.deal.scored)
        columns = tuple(as_guessed(column) for column in secrets(schema))
        path = said / "guesses"
        with heard(path, "The post to /utility/deanonymizer"):
            cells, index = read_published(path, schema, columns, caps_for(columns, number), gaps=True)
            rows = len(next(iter(cells.values())))
            for name, guessed in cells.items():
                if not (guessed.plain | guessed.empty).all():
                    raise TableError(f"Column “{name}” must hold plain values.")
            source = _sources(board, index, rows)
        nothing = {column.name: Cells.of([None], np.zeros(rows, dtype=np.int64), column) for column in columns}
        guesses = {name: one.take(source) for name, one in {**nothing, **cells}.items()}
        keep_guesses(guesses, result)
        return {"rows": number}


def _sources(board: Board, index: pa.Table, rows: int) -> Positions:
    """For each of `deal.scored` the row that is about it, -1 if there is none.

    The names of the background's rows are the index; where a table has lost them, its rows must be those of the
    background in their order.
    """
    number = len(board.deal.scored)
    for name in index.column_names:
        words = index.column(name).combine_chunks()
        if pa.types.is_dictionary(words.type):
            return sources(words, names_of(board, "background", number))
    if rows != number:
        raise TableError(f"There are {rows:,} rows without the index of the background, which has {number:,} rows.")
    source = np.empty(number, dtype=np.int64)
    source[order_of(board, "background", number)] = np.arange(number)
    return source


def _write_indexed(board: Board, folder: Path, name: str, rows: pa.Table) -> None:
    """Writes rows as `name.parquet` in this run's order. Their tokens become the index `row` of a frame."""
    number = rows.num_rows
    frame = rows.to_pandas()
    frame.index = names_of(board, name, number)
    frame.index.name = "row"
    indexed = pa.Table.from_pandas(frame.iloc[order_of(board, name, number)], preserve_index=True)
    pq.write_table(indexed, folder / f"{name}.parquet", compression="snappy", write_statistics=False)
