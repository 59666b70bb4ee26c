"""Runs the benchmarks and prints one line of JSON facts and one verdict each. Status 1 if a line is not met."""

import argparse
import functools
import json
import sys
import time

from benchmarks import chaos, chaos_fleet, gpu_race, overhead, standings, swarm, throughput, upload, validation, web

QUICK = {"overhead": overhead, "web": web, "throughput": throughput, "standings": standings, "upload": upload}
QUICK |= {"gpu_race": gpu_race}
LONG = {"chaos": chaos, "chaos-fleet": chaos_fleet, "swarm": swarm, "validation": validation}
ALL = {**QUICK, **LONG}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)} (default: all but {' and '.join(LONG)})"
    )
    parser.add_argument("--quick", action="store_true", help="of the validation: tiny sizes, no real data, no page")
    arguments = parser.parse_args()
    wanted = arguments.names or list(QUICK)
    if unknown := set(wanted) - set(ALL):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    missed = False
    for name in wanted:
        began = time.monotonic()
        print(f"== {name}: {(ALL[name].__doc__ or '').splitlines()[0]}", flush=True)
        measure = ALL[name].measure
        if arguments.quick and name == "validation":
            measure = functools.partial(validation.measure, quick=True)
        facts, verdicts = measure()
        print(json.dumps(facts), flush=True)
        for verdict in verdicts:
            missed |= not verdict.met
            print(f"   {verdict}", flush=True)
        print(f"   ({time.monotonic() - began:.0f} s)", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
