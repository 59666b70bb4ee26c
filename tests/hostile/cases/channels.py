"""Covert channels: what an image could learn beside its inputs, keep for its next run, or tell beside its outputs."""

import re
import urllib.parse
from typing import Any

import httpx
import numpy as np

from tests.hostile.model import SCORED, Case, private

_FRESH = "Every run has a container, volumes, an IPC namespace and row names of its own, thrown away afterwards."
_FROZEN = "A model is asked once, in one batch, in an order and under names drawn anew; its rounded answers are kept."
_SILENT = "Of a private run a participant learns a score, or one of nine reasons; never a log, a name or a value."


def _case(id: str, tries: str, program: str, stops: str, **more) -> Case:
    return Case(id, "channels", tries, stops, program=program, **more)


_LEAVE = """
MARK = "left by " + ("private" if is_private() else "rehearsal")
places = ["/tmp", "/output", "/dev/shm", "/dev/mqueue", "/input", "/var/tmp", "/run", "/app", "/"]
found = []
for place in places:
    with contextlib.suppress(OSError):
        found += [f"{place}/{name}" for name in os.listdir(place) if name.startswith("hostile-mark")]
    with contextlib.suppress(OSError):
        write(f"{place}/hostile-mark", MARK)
with contextlib.suppress(OSError):
    identifier = syscall(29, 0x600DBEEF, 4096, 0)  # shmget of what must not be there
    found.append(f"System V memory {identifier}")
with contextlib.suppress(OSError):
    syscall(29, 0x600DBEEF, 4096, 0o1666)
with contextlib.suppress(OSError):
    found.append(f"message queue {syscall(240, b'hostile-mark', os.O_RDONLY, 0, 0)}")
with contextlib.suppress(OSError):
    syscall(240, b"hostile-mark", os.O_CREAT | os.O_RDWR, 0o666, 0)
with contextlib.suppress(OSError):
    found.append(f"semaphore {syscall(64, 0x600DBEEF, 1, 0)}")
with contextlib.suppress(OSError):
    syscall(64, 0x600DBEEF, 1, 0o1666)
equal("found from another run", found, [])
with contextlib.suppress(OSError):
    os.remove("/output/hostile-mark")
polite()
"""


def _everything_shown(entry: Any) -> dict[str, str]:
    """Every page and API answer that the entry's team finds by following links, or can guess."""
    arena = entry.stage.arena
    session = httpx.Client(base_url=arena.url, timeout=60, follow_redirects=True)
    session.headers["Authorization"] = f"Token {arena.token(entry.email)}"
    slug = entry.challenge
    api = ["me", "challenges", f"challenges/{slug}", f"submissions/{entry.id}", f"submissions/{entry.id}/log"]
    api += [f"challenges/{slug}/{name}" for name in ("boards", "matrix", "submissions")]
    shown = {path: session.get(f"/api/v1/{path}").text for path in api}
    browser = arena.browser(entry.email)
    todo = {f"/submissions/{entry.id}/", f"/submissions/{entry.id}/log/", f"/challenges/{slug}/boards/", "/"}
    todo |= {f"/submissions/{entry.id}/log/?run={run}" for run in entry.stage.private_runs(entry)}
    todo |= {f"/private/runs/{run}/log.txt" for run in entry.stage.private_runs(entry)}
    while todo:
        path = todo.pop()
        if path in shown:
            continue
        shown[path] = browser.get(path).text
        links = re.findall(r'(?:href|src)="([^"]+)"', shown[path])
        own = (urllib.parse.urldefrag(urllib.parse.urljoin(path, link))[0] for link in links)
        todo |= {link for link in own if entry.id in link and link.startswith("/")}
    return shown


def _tells_nothing(*words: str) -> Any:
    """None of these is anywhere where a participant can look, though the container did see it."""

    def check(entry: Any) -> list[str]:
        shown = _everything_shown(entry)
        own_page = shown.get(f"/submissions/{entry.id}/", "")
        complaints = [] if entry.case.id in own_page else ["its own page was not found: this would prove nothing"]
        complaints += [f"{word} is shown at {path}" for path, text in shown.items() for word in words if word in text]
        logs = (entry.stage.arena.var / "logs").iterdir()
        complaints += [f"{word} is in {path.name}" for path in logs for word in words if word in path.read_text()]
        if words[0] not in entry.seen.logs.get("private", ""):
            complaints.append(f"the container never saw {words[0]}: this would prove nothing")
        return complaints

    return check


def _answers_have_four_decimals(entry: Any) -> list[str]:
    """Reads the release as the operator."""
    folder = entry.stage.arena.var / "private"
    answers = [np.load(path) for path in folder.rglob("answers.npy") if "reference" not in str(path)]
    if not answers:
        return ["no answers were found: this would prove nothing"]
    return [f"an answer of {one.shape} has more decimals" for one in answers if (np.round(one, 4) != one).any()]


def _rounded_seconds(entry: Any) -> list[str]:
    shown = [step["seconds"] for step in entry.facts["steps"] if not step["rehearsal"]]
    return [f"private steps show {shown} seconds"] if not shown or any(value % 30 for value in shown) else []


CASES = [
    _case("marks", "Leaves marks in every place that it can write to, and looks for those of earlier runs.", _LEAVE,
          _FRESH, walls=("ipc",)),
    _case("marks-again", "Does the same from another image, after the first.", _LEAVE, _FRESH),
    _case(
        "model-keeps-nothing",
        "A defense whose `predict` writes into its model and everywhere else, for its next run.",
        """
if STEP == "predict":
    refused("write to the model", write, INPUT / "model" / "model.json")
    refused("add to the model", write, INPUT / "model" / "more")
    equal("the model is what fit wrote", sorted(os.listdir(INPUT / "model")), ["model.json"])
else:
    say("fit", "done")
polite()
""",
        "The model is mounted read-only; only what `fit` left is in it.",
        kind="defense",
    ),
    _case(
        "input-facts",
        "Reads times, owners, numbers and sizes of its input files for what they tell.",
        """
import time
files = sorted(path for path in INPUT.rglob("*") if path.is_file())
names = [path.relative_to(INPUT).as_posix() for path in files]
tables = ("aux", "aux_answers", "answers", "candidates", "known", "known_answers")
wanted = sorted(["task.json", *(f"{name}.parquet" for name in tables)])
equal("names", names, wanted)
equal("times", sorted({path.stat().st_mtime for path in files}), [0.0])
equal("owners", sorted({(path.stat().st_uid, path.stat().st_gid) for path in files}), [(0, 0)])
equal("modes", sorted({oct(path.stat().st_mode) for path in files}), ["0o100644"])
task = json.loads((INPUT / "task.json").read_text())
words = ["challenge", "columns", "contract", "files", "limits", "scenario", "seed", "step", "target"]
equal("what the task says", sorted(task), words)
polite()
""",
        "Inputs are written anew for each run, without times or owners.",
    ),
    _case(
        "order-tells",
        "Looks whether the order, or the names, of rows tell members from others, by what it is told of some.",
        """
known = rows("known", ("row", "member"))

def auc(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = {index: place + 1 for place, index in enumerate(order)}
    members = [index for index, member in enumerate(known["member"]) if member]
    others = len(values) - len(members)
    above = sum(rank[index] for index in members) - len(members) * (len(members) + 1) / 2
    return above / (len(members) * others), len(members), others

for name, values in (("place", list(range(len(known["row"])))), ("name", known["row"])):
    value, members, others = auc(values)
    error = ((members + others + 1) / (12 * members * others)) ** 0.5
    say(name, f"{value:.3f} +- {error:.3f}", held=abs(value - 0.5) < 5 * error)
polite()
""",
        "Rows are shuffled, and named by random tokens that hold for one run only.",
    ),
    _case(
        "machine-tells",
        "Reads host name, environment, control groups and mounts for whose run this is.",
        """
import socket
equal("host name", socket.gethostname(), "anomed")
usual = {"PATH", "HOME", "HOSTNAME", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
given = ["ANOMED_INPUT", "ANOMED_OUTPUT", "ANOMED_STEP", "NVIDIA_VISIBLE_DEVICES"]
equal("environment", sorted(set(os.environ) - usual), given)
equal("no GPU unasked", os.environ.get("NVIDIA_VISIBLE_DEVICES"), "void")
seen = "".join(open(f"/proc/self/{name}").read() for name in ("mountinfo", "cgroup", "environ", "cmdline"))
for word in ("clinic", "mallory", "polly", "attack", "candidate", "private", "rehears"):
    say(f"“{word}”", word in seen, held=word not in seen.replace("ANOMED_STEP=attack", ""))
polite()
""",
        "Names are drawn at random; a container is told its step, and nothing else.",
        walls=("nvidia", "hostname"),
    ),
    _case(
        "canary",
        "Prints every private row, in colours, on both streams and in an error.",
        """
table = rows(columns=None)
for stream in (sys.stdout, sys.stderr):
    for values in zip(*table.values()):
        print(*values, file=stream)
say("printed", len(table["row"]))
polite()
if is_private():
    raise ValueError(f"canary {table['glucose']}")
""",
        _SILENT,
        expected=private("crashed"),
        check=_tells_nothing("103.9173"),
    ),
    _case(
        "names-tell",
        "Writes private values as names of files.",
        """
end_politely_unless("private")
value = 103.9173 if 103.9173 in rows(columns=("glucose",))["glucose"] else 0
print(f"stolen-{value}")
say("writing", "names")
polite()
for number in range(3):
    write(OUTPUT / f"stolen-{value}-{number}\\n")
""",
        _SILENT,
        expected=private("output_invalid"),
        check=_tells_nothing("stolen-103.9173"),
    ),
    _case(
        "columns-tell",
        "Writes private values as names of columns and as row names, which complaints might quote.",
        """
end_politely_unless("private")
value = 103.9173 if 103.9173 in rows(columns=("glucose",))["glucose"] else 0
print(f"stolen-{value}")
say("writing", "columns")
scores(header=f"row,stolen-{value}", value=f"stolen-{value}")
""",
        _SILENT,
        expected=private("output_invalid"),
        check=_tells_nothing("stolen-103.9173"),
    ),
    _case(
        "exit-status-tells",
        "Ends with a private value as its exit status.",
        """
end_politely_unless("private")
print("stolen-status")
say("ending", 77)
sys.stdout.flush()
os._exit(77)
""",
        _SILENT + " Exit statuses are for organisers.",
        expected=private("crashed"),
        check=lambda entry: [
            f"the status is shown at {path}"
            for path, text in _everything_shown(entry).items()
            if re.search(r"\bstatus\D{0,20}77\b", text)
        ],
    ),
    _case(
        "seconds-tell",
        "A defense that takes as long on private data as a value that it saw.",
        'import time\ntime.sleep(3.3 if is_private() else 0)\nsay("slept", 3.3)\npolite()',
        "Times of private runs are shown in steps of 30 seconds, those of duels not at all.",
        kind="defense",
        check=_rounded_seconds,
    ),
    _case(
        "decimals-tell",
        "A defense that hides the place of each row in the last digits of its answers.",
        'say("step", STEP)\npolite() if STEP == "fit" else predictions(lambda number, *_: 0.5 + number * 1e-7)',
        "Answers are rounded to four decimals before anybody sees them.",
        kind="defense",
        check=_answers_have_four_decimals,
    ),
    _case(
        "answers-by-time",
        "A defense that answers otherwise at another time of the day.",
        'import time\nsay("step", STEP)\npolite() if STEP == "fit" else predictions(lambda *_: time.time() % 1)',
        _FROZEN,
        kind="defense",
    ),
    _case(
        "answers-by-batch",
        "A defense that answers by how many it is asked about, to behave only when it is tested.",
        """
say("step", STEP)
if STEP == "fit":
    polite()
else:
    batch = len(rows()["row"])
    predictions(lambda *_: batch % 97 / 97)
""",
        _FROZEN,
        kind="defense",
    ),
    _case(
        "answers-by-order",
        "A defense that learns the order of its training rows and answers by place.",
        """
say("step", STEP)
if STEP == "fit":
    polite()
    write(OUTPUT / "model" / "model.json", json.dumps(rows(columns=("glucose",))["glucose"]))
else:
    learnt = json.loads((INPUT / "model" / "model.json").read_text())
    predictions(lambda number, *_: learnt[number % len(learnt)] % 1)
""",
        _FROZEN,
        kind="defense",
    ),
]  # fmt: skip
assert all(case.expected == SCORED or case.check for case in CASES)
