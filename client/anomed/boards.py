"""Boards, matrix and lists as tables, or as JSON lines with `--json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from anomed.api import Json
from anomed.words import Voice, cell

CHALLENGE_HEADS = {
    "slug": "challenge",
    "title": "title",
    "scenario": "scenario",
    "status": "status",
    "closes_at": "closes",
    "joined": "joined",
}
DEFENSE_HEADS = {
    "rank": "rank",
    "team": "team",
    "name": "name",
    "role": "role",
    "score": "score",
    "utility": "utility",
    "privacy": "privacy",
    "worst_leak": "worst leak",
    "qualified": "qualified",
    "duels": "duels",
    "pending": "pending",
}
ATTACK_HEADS = {
    "rank": "rank",
    "team": "team",
    "name": "name",
    "role": "role",
    "score": "score",
    "mean_leak": "mean leak",
    "novelty": "novelty",
    "duels": "duels",
    "pending": "pending",
}
SUBMISSION_HEADS = {
    "id": "submission",
    "challenge": "challenge",
    "kind": "kind",
    "name": "name",
    "state": "state",
    "active": "active",
    "score": "score",
    "rank": "rank",
    "note": "note",
}


def show_challenges(challenges: Sequence[Json], voice: Voice) -> None:
    """The challenges of a server."""
    _show("Challenges", CHALLENGE_HEADS, challenges, challenges, voice)


def show_submissions(submissions: Sequence[Json], voice: Voice) -> None:
    """One line per submission."""
    rows = [entry | _numbers(entry) for entry in submissions]
    _show("Submissions", SUBMISSION_HEADS, rows, submissions, voice)


def show_boards(boards: Json, voice: Voice) -> None:
    """Both boards; a JSON line per row says which one it is from."""
    if boards.get("ranked_by") and not voice.as_json:
        voice.say(cell(boards["ranked_by"]))
    for title, heads in (("Defenses", DEFENSE_HEADS), ("Attacks", ATTACK_HEADS)):
        rows: Sequence[Json] = boards[title.lower()]
        _show(title, heads, [_shown(row) for row in rows], [{"board": title.lower()} | row for row in rows], voice)


def show_matrix(matrix: Json, voice: Voice) -> None:
    """Attacks down, defenses across, the leak where they met; JSON lines are the cells."""
    defenses, attacks = matrix["defenses"], matrix["attacks"]
    found = {(str(item["attack"]), str(item["defense"])): item for item in matrix["cells"]}
    heads = {"attack": "attack \\ defense"} | {_key(defense): _label(defense) for defense in defenses}
    rows = [
        {"attack": _label(attack)}
        | {_key(defense): _leak(found.get((_key(attack), _key(defense)))) for defense in defenses}
        for attack in attacks
    ]
    _show("Leak of each duel", heads, rows, matrix["cells"], voice)


def _show(
    title: str, heads: Mapping[str, str], rows: Sequence[Mapping[str, Any]], records: Sequence[Json], voice: Voice
) -> None:
    if voice.as_json:
        for record in records:
            voice.record(record)
    elif rows:
        voice.table(title, heads, rows)
    else:
        voice.say(f"{title}: none yet.")


def _numbers(submission: Json) -> Json:
    score = submission.get("score") or {}
    return {"score": score.get("score"), "rank": ranks(score)}


def ranks(row: Json) -> str | int | None:
    """The rank, or the ranks that entries share which cannot be told apart: 4-6."""
    first, last = row.get("rank"), row.get("rank_last")
    return first if last in (None, first) else f"{first}-{last}"


def _shown(row: Json) -> Json:
    """A line with its intervals beside its numbers."""
    intervals = row.get("intervals") or {}
    return row | {
        # it has points already: its rank is being worked out
        "rank": "…"
        if row.get("role") == "entry" and row.get("rank") is None and row.get("score") is not None
        else ranks(row),
        **{
            name: f"{cell(row[name])} ({cell(low)}-{cell(high)})"
            for name, (low, high) in intervals.items()
            if row.get(name) is not None
        },
    }


def _key(entry: Json) -> str:
    return str(entry["submission"])


def _label(entry: Json) -> str:
    name = cell(entry.get("name") or entry["submission"])
    return f"{name} ({cell(entry['team'])})" if entry.get("team") else name


def _leak(found: Json | None) -> Any:
    """The leak as a number; where there is none yet, the duel's state."""
    if found is None:
        return None
    return found["leak"] if found.get("leak") is not None else found.get("state")
