"""What every hostile program has at hand; it lies beside it in the image. Says what happened, one JSON line at a time.

A line is {"case": ..., "fact": name, "got": text, "held": true or false}; the judge reads them from the log.
"""

import contextlib
import ctypes
import errno
import json
import os
import sys
from pathlib import Path

import tokens

SETTING = json.loads(Path("/app/setting.json").read_text())
TARGETS = SETTING["targets"]
STEP = os.environ.get("ANOMED_STEP", "")
INPUT, OUTPUT = Path("/input"), Path("/output")
# Rows of the step's main table: the public sample has fewer than these, the private table has more.
TABLES = {"attack": ("candidates", 400), "fit": ("train", 300), "predict": ("queries", 800), "release": ("table", 300)}
COLUMNS = ("age", "sex", "glucose", "diabetes")
LIBC = ctypes.CDLL(None, use_errno=True)


def rows(name="", columns=("row",)):
    """Columns of one of the step's tables, as lists."""
    path = INPUT / f"{name or TABLES[STEP][0]}.parquet"
    if columns == ("row",):
        return {"row": tokens.read(path)}
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=list(columns) if columns else None, use_threads=False)
    return table.to_pydict()


def is_private():
    """Whether this is the run on private data: a hostile image can tell, too."""
    name, most = TABLES[STEP]
    if STEP in ("fit", "release"):  # its table names no rows
        import pyarrow.parquet

        return pyarrow.parquet.read_metadata(INPUT / f"{name}.parquet").num_rows > most
    return len(rows()["row"]) > most


def say(fact, got, held=True):
    line = {"case": SETTING["case"], "fact": fact, "got": str(got)[:300], "held": bool(held)}
    print("\n" + json.dumps(line), flush=True)


def refused(fact, function, *arguments):
    """Calls something that must not be possible. True if it was."""
    try:
        got = function(*arguments)
    except OSError as error:
        say(fact, errno.errorcode.get(error.errno or 0, type(error).__name__))
        return False
    except (MemoryError, ValueError) as error:
        say(fact, type(error).__name__)
        return False
    say(fact, f"WORKED: {got!r}", held=False)
    return True


# What a call answers that was let through and then found its arguments wanting.
REACHED = (errno.EFAULT, errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOEXEC)


def blocked(fact, function, *arguments):
    """Calls the kernel by what must not even be looked at: that arguments are found wrong means that it was."""
    try:
        got = function(*arguments)
    except OSError as error:
        say(fact, errno.errorcode.get(error.errno or 0), held=error.errno not in REACHED)
    else:
        say(fact, f"WORKED: {got!r}", held=False)


def measured(fact, value, most):
    """A quantity that must not exceed a bound."""
    say(fact, f"{value} (at most {most})", held=value <= most)


def equal(fact, value, wanted):
    say(fact, value, held=value == wanted)


def syscall(number, *arguments):
    """One system call. Raises OSError."""
    LIBC.syscall.restype = ctypes.c_long
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *(_word(argument) for argument in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _word(argument):
    return ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_long(argument)


def in_child(function, *arguments):
    """Calls it in a process of its own, which may come to harm; the wait status."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            function(*arguments)
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]


def write(path, text="hostile\n"):
    return Path(path).write_text(text)


def fill(path, most):
    """Writes zeros until nothing more fits, or `most` bytes are there; returns how many."""
    written = 0
    with contextlib.suppress(OSError), Path(path).open("wb", buffering=0) as file:
        while written < most:
            written += file.write(bytes(1 << 20))
    return written


def polite():
    """What the step asks for, with nothing in it, so that the run can end well."""
    if STEP == "fit":
        (OUTPUT / "model").mkdir(exist_ok=True)
        write(OUTPUT / "model" / "model.json", "{}")
    elif STEP == "predict":
        predictions()
    else:
        scores()


def predictions(answer=lambda number, row, glucose: min(1, max(0, glucose / 200))):
    """A model that looks at one value, or one that cheats."""
    asked = rows(columns=("row", "glucose"))
    lines = ["row,no,yes"]
    for number, (row, glucose) in enumerate(zip(asked["row"], asked["glucose"], strict=True)):
        yes = answer(number, row, glucose)
        lines.append(f"{row},{1 - yes!r},{yes!r}")
    write(OUTPUT / "predictions.csv", "\n".join(lines) + "\n")


def scores(*more, header="row,score", value="0.0", names=None):
    """Polite scores, with some lines more."""
    names = rows()["row"] if names is None else names
    write(OUTPUT / "scores.csv", "\n".join([header, *(f"{row},{value}" for row in names), *more]) + "\n")


def released():
    """The table that a defense may release something of, as a list of dictionaries."""
    import pyarrow.parquet

    name = "train" if (INPUT / "train.parquet").exists() else "table"
    return pyarrow.parquet.read_table(INPUT / f"{name}.parquet", columns=list(COLUMNS), use_threads=False).to_pylist()


def release(records=None, scheme='{"scheme": "same"}', **cells):
    """A table of theirs as CSV, with these cells in every row, and where it is asked for the scheme."""
    import csv

    records = released() if records is None else records
    with (OUTPUT / "release.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**record, **cells} for record in records)
    if scheme is not None and (INPUT / "table.parquet").exists():
        write(OUTPUT / "scheme.json", scheme)


def release_parquet(scheme='{"scheme": "same"}', **columns):
    """The same as Parquet, with these arrays as columns."""
    import pyarrow
    import pyarrow.parquet

    records = released()
    whole = {name: columns.get(name, [record[name] for record in records]) for name in COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(whole), OUTPUT / "release.parquet", compression="zstd")
    if (INPUT / "table.parquet").exists():
        write(OUTPUT / "scheme.json", scheme)


def guesses(names=None, value="100.0", header="row,glucose"):
    """The same guess about everybody."""
    names = rows("background")["row"] if names is None else names
    write(OUTPUT / "guesses.csv", "\n".join([header, *(f"{row},{value}" for row in names)]) + "\n")


def end_politely_unless(wanted):
    """Ends here, well, if this is not the run that is to be attacked: "private" or "rehearsal"."""
    if is_private() != (wanted == "private"):
        polite()
        say("polite", "not attacked")
        sys.exit()
