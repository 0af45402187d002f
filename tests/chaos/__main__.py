"""`scripts/chaos`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.chaos.faults import BORDERS, faulty
from tests.chaos.storm import Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every-call", action="store_true", help="a fault at each call over each border, one by one")
    given = parser.parse_args()
    return every_call() if given.every_call else storm(given.minutes, given.seed)


def storm(minutes: float, seed: int | None) -> int:
    seed = int(time.time()) % 1_000_000 if seed is None else seed
    print(f"seed {seed}, {minutes:g} minutes", flush=True)
    made = Storm(seed, lambda text: print(f"  {text}", flush=True))
    try:
        report = made.run(minutes * 60)
        log = made.log()
    except AssertionError:
        print(f"{made.state()}\nthe daemon's log ends:\n{made.log()[-8000:]}")
        raise
    finally:
        made.close()
    print(report)
    for line in [*report.failed_requests[:20], *report.orphans, *report.lost]:
        print(f"  {line}")
    if not report.is_clean:
        print(f"the daemon's log ends:\n{log[-5000:]}")
    return 0 if report.is_clean else 1


def every_call() -> int:
    """One row for each border and action: how many calls a push makes, and at how many of them something broke."""
    broken = 0
    for border, actions in BORDERS.items():
        for action in actions:
            calls, failures = _all_calls(border, action)
            print(f"{border:10} {action:6} {calls:4} calls, {len(failures)} broken", flush=True)
            for failure in failures:
                print(f"  {failure}")
            broken += len(failures)
    return 1 if broken else 0


def _all_calls(border: str, action: str) -> tuple[int, list[str]]:
    number, failures = 1, []
    while True:
        with faulty() as made:
            try:
                while made.push(border, number, action):
                    number += 1
                return number - 1, failures
            except AssertionError as error:
                failures.append(f"call {number}: {str(error)[:300]}")
                number += 1


if __name__ == "__main__":
    sys.exit(main())
