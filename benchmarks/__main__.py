"""Runs the benchmarks and prints one line of JSON facts and one verdict each. Status 1 if a line is not met."""

import argparse
import json
import sys
import time

from benchmarks import chaos, chaos_fleet, gpu_race, overhead, standings, swarm, throughput, upload

QUICK = {"overhead": overhead, "throughput": throughput, "standings": standings, "upload": upload, "gpu_race": gpu_race}
LONG = {"chaos": chaos, "chaos-fleet": chaos_fleet, "swarm": swarm}
ALL = {**QUICK, **LONG}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)} (default: all but {' and '.join(LONG)})"
    )
    wanted = parser.parse_args().names or list(QUICK)
    if unknown := set(wanted) - set(ALL):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    missed = False
    for name in wanted:
        began = time.monotonic()
        print(f"== {name}: {(ALL[name].__doc__ or '').splitlines()[0]}", flush=True)
        facts, verdicts = ALL[name].measure()
        print(json.dumps(facts), flush=True)
        for verdict in verdicts:
            missed |= not verdict.met
            print(f"   {verdict}", flush=True)
        print(f"   ({time.monotonic() - began:.0f} s)", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
