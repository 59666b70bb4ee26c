"""`make hostile`: plays all cases on runc and on gVisor, prints one table and a last line with the counts.

ARGS=--mutations takes the protections away one by one instead; ARGS=--write does both and rewrites docs/security.md.
"""

import argparse
import json
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.hostile import mutations, report
from tests.hostile.cases import CASES
from tests.hostile.ears import Ears
from tests.hostile.model import GROUPS, Case
from tests.hostile.play import WALLS, Performance, curtain, play
from tests.hostile.stage import Stage

_BEGUN = time.monotonic()


def tell(text: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:4.0f} s] {text}", flush=True)


def main() -> int:
    options = _options()
    if options.mutations:
        return 1 if mutations.print_table(mutations.main(tell)) else 0
    cases = [case for case in CASES if not options.only or any(case.id.startswith(o) for o in options.only.split(","))]
    performances, last = perform(cases, options.runtimes.split(","), keep=options.keep)
    print_table(cases, performances)
    failed = print_aftermath(performances, last)
    results = report.results_of(performances, last)
    passed = sum(len(one.seen) + len(one.aftermath) for one in performances) + len(last) - failed
    if options.write:
        results["mutations"] = mutations.main(tell)
        failed += mutations.print_table(results["mutations"])
        report.write(results)
    if options.save:
        Path(options.save).write_text(json.dumps(results))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--runtimes", default="runc,gvisor")
    parser.add_argument("--only", default="", help="cases whose names begin so, separated by commas")
    parser.add_argument("--mutations", action="store_true", help="take the protections away one by one")
    parser.add_argument("--write", action="store_true", help="also the mutations; rewrites docs/security.md")
    parser.add_argument("--save", help="a file for the results, which tests.hostile.report reads")
    parser.add_argument("--keep", help="a folder for the arena, which then stays")
    return parser.parse_args()


def perform(
    cases: list[Case], runtimes: list[str], keep: str | None = None
) -> tuple[list[Performance], dict[str, str]]:
    """All cases in all runtimes, on one stage; and what must hold once it is struck."""
    with _Kept(keep) if keep else tempfile.TemporaryDirectory(prefix="anomed-hostile-") as folder:
        performances = []
        with Ears() as ears, Stage(Path(folder)) as stage:
            tell("the arena stands")
            for runtime in runtimes:
                if stage.arena.walls != WALLS[runtime]:
                    stage.arena.stop()
                    stage.arena.walls = WALLS[runtime]
                    stage.arena.serve()
                performances.append(play(stage, ears, runtime, cases, tell))
                for name, seen in performances[-1].seen.items():
                    if not seen.held:
                        tell(f"{runtime}: {name} FAILED: {'; '.join(seen.complaints)[:500]}")
        last = curtain(stage)
        if not keep:
            stage.remove_images()
        return performances, last


class _Kept:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> str:
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        return self.folder

    def __exit__(self, *_: object) -> None:
        pass


def print_table(cases: list[Case], performances: list[Performance]) -> None:
    """One line for each case."""
    head = ["case", "what it tries", "expected", *(one.runtime for one in performances)]
    widths = [22, 64, 34, *(7 for _ in performances)]

    def line(cells: list[str]) -> str:
        return "  ".join(f"{textwrap.shorten(c, w, placeholder='…'):{w}}" for c, w in zip(cells, widths, strict=True))

    print("\n" + line(head))
    for group, title in GROUPS.items():
        members = [case for case in cases if case.group == group]
        if members:
            print(f"-- {title}")
        for case in members:
            verdicts = ["held" if one.seen[case.id].held else "FAILED" for one in performances]
            print(line([case.id, case.tries, str(case.expected), *verdicts]))
    for one in performances:
        for name, seen in one.seen.items():
            for complaint in seen.complaints:
                print(f"FAILED {one.runtime} {name}: {complaint}")


def print_aftermath(performances: list[Performance], last: dict[str, str]) -> int:
    """What held afterwards; returns how many things failed in all."""
    for name, held in [(one.runtime, one.aftermath) for one in performances] + [("at the end", last)]:
        for sentence, trouble in held.items():
            print(f"{name}: {sentence}: {'NO: ' + trouble if trouble else 'yes'}")
    for one in performances:
        print(f"{one.runtime} took {one.seconds:.0f} s")
    return sum(one.failures for one in performances) + sum(map(bool, last.values()))


if __name__ == "__main__":
    sys.exit(main())
