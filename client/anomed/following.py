"""Following a submission to its end."""

import time
from collections.abc import Iterator

import httpx

from anomed.api import Api, Json
from anomed.boards import ranks
from anomed.problems import Refused, Status, Unreachable
from anomed.words import Voice, cell

FINAL = frozenset({"scored", "failed", "withdrawn", "disqualified"})
FIRST_PAUSE, LONGEST_PAUSE, SLOWER = 0.5, 3.0, 1.3
OUTAGES = 12  # failed reads in a row; with pauses of up to 10 s this bears a restart of the server
LONGEST_OUTAGE_PAUSE = 10.0
LOG_LINES = 25
ROUTE_HEADS = {"step": "step", "request": "route", "by": "asked by", "status": "status", "outcome": "result"}
NEXT = {
    "uploading": "the archive is being uploaded",
    "checking": "the archive is being checked",
    "rehearsing": "rehearsal on the public sample",
    "queued": "waiting for a free place",
    "running": "running on the private data",
}


def versions(api: Api, id: str) -> Iterator[Json]:
    """The submission each time it has changed, until it has come to its end. Bears short outages of the server."""
    pause, outages, tag = FIRST_PAUSE, 0, ""
    latest: Json | None = None
    while True:
        try:
            response = api.request("GET", api.path("submissions", id), headers={"If-None-Match": tag} if tag else None)
            outages = 0
        except (Unreachable, Refused) as problem:
            outages += 1
            if outages > OUTAGES or (isinstance(problem, Refused) and not problem.passing):
                raise
            time.sleep(min(FIRST_PAUSE * 2.0**outages, LONGEST_OUTAGE_PAUSE))
            continue
        tag = response.headers.get("ETag", "")
        found = latest if response.status_code == httpx.codes.NOT_MODIFIED else response.json()
        if found is not None and found != latest:
            latest, pause = found, FIRST_PAUSE
            yield latest
            if is_over(latest):
                return
        time.sleep(pause)
        pause = min(pause * SLOWER, LONGEST_PAUSE)


def follow(api: Api, id: str, voice: Voice) -> Status:
    """Shows each change until the end; returns the exit status that the end stands for."""
    told: set[str] = set()
    latest: Json = {}
    with voice.waiting() as tell:
        for latest in versions(api, id):
            if voice.as_json:
                voice.record(latest)
                continue
            for line in news(latest):
                if line not in told:
                    told.add(line)
                    voice.say(line)
            tell(progress(latest))
    return conclude(api, latest, voice)


def show(submission: Json, voice: Voice) -> None:
    """Where a submission stands now."""
    if voice.as_json:
        voice.record(submission)
        return
    title = submission.get("note") or submission.get("name") or ""
    voice.say(f"{submission['kind']} {submission['id']} in {submission['challenge']}: {title}")
    for line in news(submission):
        voice.say(line)
    show_exchanges(submission, voice)
    if is_over(submission):
        for line in ending(submission):
            voice.say(line)
    else:
        voice.say(f"  now: {progress(submission)}")


def show_exchanges(submission: Json, voice: Voice) -> None:
    """Of an entry that is a web server: the routes of its rehearsal, and how much it asked defenses about."""
    rows = [route | {"step": step["step"]} for step in submission["steps"] for route in step.get("routes") or ()]
    if rows:
        voice.table("Routes of the rehearsal", ROUTE_HEADS, rows)
    asked = submission.get("questions") or {}
    for found in asked.get("defenses") or ():
        most = "" if asked.get("exact") or not found["rows"] else "up to "
        voice.say(f"  asked {found['name']}: {most}{found['rows']} of {asked['budget']} rows")


def is_over(submission: Json) -> bool:
    """Whether there is nothing to wait for: it has come to its end, or what comes of it is secret for now."""
    return submission["state"] in FINAL or bool(submission.get("sealed"))


def news(submission: Json) -> list[str]:
    """Lines that stay true: the state reached and the steps that are over."""
    lines = [
        f"  {step_name(step)}: {step['state']}{duration(step)}" for step in submission["steps"] if step_is_over(step)
    ]
    if not is_over(submission):
        lines.append(f"{submission['state']}: {NEXT.get(submission['state'], '')}")
    return lines


def step_is_over(step: Json) -> bool:
    return step["state"] not in ("queued", "running", "")


def step_name(step: Json) -> str:
    return f"{step['step']} (rehearsal)" if step.get("rehearsal") else str(step["step"])


def duration(step: Json) -> str:
    return "" if step.get("seconds") is None else f", {step['seconds']:.0f} s"


def progress(submission: Json) -> str:
    """What goes on now, in one line."""
    parts = [str(submission["state"])]
    parts += [step_name(step) for step in submission["steps"] if step["state"] == "running"]
    duels = submission.get("duels") or {}
    if duels.get("total"):
        parts.append(f"duels {duels['done']}/{duels['total']}")
    return " · ".join(parts)


def conclude(api: Api, submission: Json, voice: Voice) -> Status:
    """Says how it ended; for a failed rehearsal with its routes and the last lines of its log."""
    state = submission["state"]
    if not voice.as_json:
        for line in ending(submission):
            voice.say(line, style={"scored": "green", "failed": "red"}.get(state, ""))
        if (submission.get("failure") or {}).get("reason") == "rehearsal_failed" or _failed_in_rehearsal(submission):
            show_exchanges(submission, voice)
            _show_log_end(api, submission["id"], voice)
    return Status.SCORED if state == "scored" or submission.get("sealed") else Status.FAILED


def ending(submission: Json) -> list[str]:
    """The score, or the named reason with its sentence and hint."""
    failure = submission.get("failure")
    if failure:
        cause = f" ({failure['cause']})" if failure.get("cause") else ""
        lines = [
            f"failed: {failure['reason']}{cause}",
            failure.get("sentence") or "",
            failure.get("detail") or "",
            failure.get("hint") or "",
        ]
        return [line for line in lines if line]
    if submission.get("sealed"):
        return ["late: it runs in the final, without a rank. Its result comes when the organisers reveal the others."]
    if submission["state"] != "scored":
        return [f"{submission['state']}: it takes no part in duels any more."]
    return [f"scored: {score_line(submission)}"]


def score_line(submission: Json) -> str:
    """The numbers of SCORING by their names; an attack has only a score and a rank."""
    score = submission.get("score") or {}
    names = {
        "utility": "utility",
        "privacy": "privacy",
        "worst_leak": "worst leak",
        "mean_leak": "mean leak",
        "score": "score",
        "ranks": "rank",
    }
    score = score | {"ranks": ranks(score)}
    parts = [f"{name} {cell(score[key])}" for key, name in names.items() if score.get(key) is not None]
    return ", ".join(parts) or "no score yet: nobody to meet"


def _failed_in_rehearsal(submission: Json) -> bool:
    return submission["state"] == "failed" and any(
        step.get("rehearsal") and step["state"] == "failed" for step in submission["steps"]
    )


def _show_log_end(api: Api, id: str, voice: Voice) -> None:
    try:
        log = str(api.get("submissions", id, "log")["log"])
    except (Refused, Unreachable):
        return
    lines = log.rstrip().splitlines()[-LOG_LINES:]
    if lines:
        voice.say(f"The last lines of the rehearsal's log (all of it: anomed log {id}):")
        voice.say("\n".join(f"  | {line}" for line in lines))
