"""What an exchange consists of: /input/plan.json, written by the platform, read by the gateway.

    {"contract": "web/1",
     "seconds": 600,                         the whole exchange may take
     "ready": "/",                           GET of it answers 200 with JSON once the server is there
     "serve": {ROUTE: {"file": NAME} or {"by": PARAMETER, "files": {VALUE: NAME}}},
     "record": {ROUTE: {"to": NAME, "limit": BYTES, "parts": [NAME, ...], "required": true}
                    or {"by": PARAMETER, "limit": BYTES, "to": {VALUE: NAME or null},
                        "mark": {VALUE: {"truth": NAME, "measure": "labels" or "membership"}}}},
     "target": {ROUTE: {"file": NAME} or {"answers": NAME, "budget": ROWS, "limit": BYTES, "live": true}},
     "calls": [{"post": ROUTE, "body": NAME, "save": NAME, "limit": BYTES, "optional": true}, {"get": ROUTE, ...}]}

GET of a served route answers 200 with the file. POST to a recorded one answers 201 with {}, or with a mark; its body is
kept as /output/NAME (null: it is not kept; "parts": a form's parts, each kept as /output/NAME.PART), once: a second
post is refused. Target routes are served where ATTACK_TARGET_HOST says: files by GET; "answers" by POST, see `answers`.
Calls are made of the server in turn and must be answered by 200 (get) or 201 (post); "save" keeps the answer's body.
A post without "body" and "save" is a command. If a proxy gives up waiting for one (504), the server may go on: then the
next call is patient, and so is the end of the exchange until all required posts are there. So put a question behind a
command that may take long and makes no posts.
NAMEs are those of files in /input and /output, perhaps in one folder. A query parameter BY chooses among VALUEs;
another value answers 400.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTRACT = "web/1"
MEGABYTE = 1 << 20
MEASURES = ("labels", "membership")
_NAME = re.compile(r"([a-z]{1,20}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ROUTE = re.compile(r"/[A-Za-z0-9/_.-]{0,199}(\?[A-Za-z0-9_=&.-]{0,200})?")


class PlanError(ValueError):
    """The plan makes no sense; the message says where."""


@dataclass(frozen=True)
class Mark:
    """How a post is answered: by how well it agrees with `y` of the file `truth`, which is no secret of this run."""

    truth: str
    measure: str


@dataclass(frozen=True)
class Serve:
    """Files to be fetched; by the value of the query parameter `by`, or the one under "" if there is no choice."""

    files: dict[str, str]
    by: str = ""


@dataclass(frozen=True)
class Record:
    """Posts to be taken; `to` says by value of the parameter `by` as what they are kept, None: not at all."""

    to: dict[str, str | None]
    by: str = ""
    limit: int = 64 * MEGABYTE
    parts: tuple[str, ...] = ()
    required: bool = True
    mark: dict[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """A table of answers to `budget` rows in all; `live`: rows that are not in it may be asked elsewhere."""

    file: str
    budget: int
    limit: int = 64 * MEGABYTE
    live: bool = False


@dataclass(frozen=True)
class Call:
    """A request to the stranger's server."""

    method: str
    route: str
    body: str = ""
    save: str = ""
    limit: int = MEGABYTE
    optional: bool = False

    @property
    def name(self) -> str:
        """As it is known in logs and reports."""
        return f"{self.method} {self.route}"

    @property
    def is_command(self) -> bool:
        """Whether it makes the server do something. Other calls ask for something, and may be sent twice."""
        return self.method == "POST" and not self.body and not self.save

    @property
    def expected(self) -> int:
        """The status that says that all is well."""
        return 201 if self.method == "POST" else 200


@dataclass(frozen=True)
class Plan:
    """All of an exchange."""

    seconds: float
    ready: str
    serve: dict[str, Serve]
    record: dict[str, Record]
    target: dict[str, Serve | Answers]
    calls: tuple[Call, ...]

    @property
    def called(self) -> list[str]:
        """All that the server is called for, in order."""
        return list(dict.fromkeys([f"GET {self.ready}", *(call.name for call in self.calls)]))

    @property
    def offered(self) -> list[str]:
        """All that the server may ask for, without its query parameters."""
        files = [route for route, item in (*self.serve.items(), *self.target.items()) if isinstance(item, Serve)]
        posts = [*self.record, *(route for route, item in self.target.items() if isinstance(item, Answers))]
        return [*(f"GET {route}" for route in files), *(f"POST {route}" for route in posts)]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan, beside which there is all that it needs. Raises PlanError."""
        try:
            plan = cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise PlanError(f"{path.name}: {error}") from error
        if missing := sorted(name for name in plan.inputs() if not (path.parent / name).is_file()):
            raise PlanError(f"{path.name}: there is no {missing[0]}.")
        return plan

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Raises PlanError with what is wrong."""
        try:
            if data["contract"] != CONTRACT:
                raise PlanError(f"The contract is not {CONTRACT}.")
            _only(data, "contract", "seconds", "ready", "serve", "record", "target", "calls")
            if twice := set(data.get("serve", {})) & set(data.get("record", {})):
                raise PlanError(f"{twice.pop()} is served and recorded.")
            return cls(
                seconds=_positive(data["seconds"]),
                ready=_route(data.get("ready", "/")),
                serve={_route(route): _serve(item) for route, item in data.get("serve", {}).items()},
                record={_route(route): _record(item) for route, item in data.get("record", {}).items()},
                target={_route(route): _target(item) for route, item in data.get("target", {}).items()},
                calls=tuple(_call(item) for item in data["calls"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"The plan is incomplete: {error!r}") from error

    def inputs(self) -> set[str]:
        """The names of all files that must be in /input."""
        served = [item for item in (*self.serve.values(), *self.target.values()) if isinstance(item, Serve)]
        tables = [item.file for item in self.target.values() if isinstance(item, Answers)]
        marks = [mark.truth for item in self.record.values() for mark in item.mark.values()]
        bodies = [call.body for call in self.calls if call.body]
        return {name for item in served for name in item.files.values()} | {*tables, *marks, *bodies}


def _serve(item: Any) -> Serve:
    if "by" in item:
        _only(item, "by", "files")
        return Serve({str(value): _name(name) for value, name in item["files"].items()}, by=str(item["by"]))
    _only(item, "file")
    return Serve({"": _name(item["file"])})


def _record(item: Any) -> Record:
    _only(item, "by", "to", "limit", "parts", "required", "mark")
    to = item["to"] if "by" in item else {"": item["to"]}
    marks = {value: _mark(mark) for value, mark in item.get("mark", {}).items()}
    if unknown := set(marks) - set(to):
        raise PlanError(f"{unknown.pop()} is marked, but is no value to choose.")
    return Record(
        to={value: None if name is None else _name(name) for value, name in to.items()},
        by=str(item.get("by", "")),
        limit=_limit(item, Record.limit),
        parts=tuple(_name(part) for part in item.get("parts", ())),
        required=bool(item.get("required", True)),
        mark=marks,
    )


def _mark(item: Any) -> Mark:
    _only(item, "truth", "measure")
    if item["measure"] not in MEASURES:
        raise PlanError(f"There is no measure {item['measure']!r}.")
    return Mark(_name(item["truth"]), item["measure"])


def _target(item: Any) -> Serve | Answers:
    if "answers" not in item:
        return _serve(item)
    _only(item, "answers", "budget", "limit", "live")
    limit = _limit(item, Answers.limit)
    return Answers(_name(item["answers"]), int(item["budget"]), limit, bool(item.get("live", False)))


def _call(item: Any) -> Call:
    _only(item, "post", "get", "body", "save", "limit", "optional")
    method = "POST" if "post" in item else "GET"
    return Call(
        method,
        _route(item[method.lower()]),
        body=_name(item["body"]) if "body" in item else "",
        save=_name(item["save"]) if "save" in item else "",
        limit=_limit(item, Call.limit),
        optional=bool(item.get("optional", False)),
    )


def _positive(number: Any) -> float:
    if not 0 < float(number) < float("inf"):
        raise PlanError(f"{number!r} is no number above 0.")
    return float(number)


def _limit(item: Any, default: int) -> int:
    return int(_positive(item.get("limit", default)))


def _name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PlanError(f"{name!r} is no name of a file.")
    return name


def _route(route: Any) -> str:
    if not isinstance(route, str) or not _ROUTE.fullmatch(route):
        raise PlanError(f"{route!r} is no route.")
    return route


def _only(item: Any, *known: str) -> None:
    if unknown := set(item) - set(known):
        raise PlanError(f"There is no {', '.join(sorted(unknown))} in a plan.")
