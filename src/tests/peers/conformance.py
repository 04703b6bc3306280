#!/usr/bin/env python3
"""Runs the official conformance suite against a server and through the gateway.

It proves that the gateway costs the server behind it no check: the two runs are
compared check by check, since the suite's exit code hides warnings and checks
that went missing. Both servers must be running on 127.0.0.1 or localhost.

    conformance.py --raw http://127.0.0.1:1/mcp --through http://127.0.0.1:2/mcp
                   [--spec 2026-07-28]... [--scenario NAME] [--out DIR]
                   [--allow SCENARIO/CHECK:STATUS]...

Exits 1 where a check got lost or worse, or where the server itself has none;
--allow names a check that may get as bad as STATUS.
$NODE22 and $CONF may name Node 22 and the suite; .ci/peers installs both.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

PEERS = pathlib.Path(__file__).resolve().parents[3] / ".peers"
MODULES = PEERS / "node_modules"
NODE = os.environ.get("NODE22", MODULES / "node/bin/node")
SUITE = os.environ.get("CONF", MODULES / "@modelcontextprotocol/conformance/dist/index.js")

# What the suite is asked for, by revision.
SELECTIONS = {
    "2025-03-26": ["--suite", "all", "--spec-version", "2025-03-26"],
    "2025-06-18": ["--suite", "all", "--spec-version", "2025-06-18"],
    "2025-11-25": ["--requirements", "2025-11-25"],
    "2026-07-28": ["--requirements", "2026-07-28"],
}
# From best to worst. INFO is the suite's own diary; only a verdict counts.
RANKS = {"SUCCESS": 0, "SKIPPED": 1, "INFO": 1, "WARNING": 2, "FAILURE": 3, "missing": 4}
RUN_TIMEOUT_S = 900

# The verdicts of one run: the statuses of each (scenario, check), best first.
Verdicts = dict[tuple[str, str], list[str]]


def run(url: str, spec: str, scenario: str | None, out: pathlib.Path) -> Verdicts:
    """Runs the suite against `url`, keeps its log in `out`, returns its verdicts."""
    selection = ["--scenario", scenario, "--spec-version", spec] if scenario else SELECTIONS[spec]
    out.mkdir(parents=True)
    command = [str(NODE), str(SUITE), "server", "--url", url, *selection, "-o", str(out)]
    with (out / "log").open("wb") as log:
        try:
            subprocess.run(command, stdout=log, stderr=log, timeout=RUN_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            print(f"{spec}: {url} did not finish in {RUN_TIMEOUT_S} s", file=sys.stderr)
    verdicts: Verdicts = collections.defaultdict(list)
    for path in sorted(out.glob("*/checks.json")):
        name = re.sub(r"^server-|-\d{4}-\d\d-\d\dT[^/]*$", "", path.parent.name)
        for check in json.loads(path.read_text()):
            verdicts[name, check["id"]].append(check["status"])
    for statuses in verdicts.values():
        statuses.sort(key=RANKS.__getitem__)
    return verdicts


def compare(raw: Verdicts, through: Verdicts) -> list[tuple[str, str, str, str]]:
    """Every check that fares differently: scenario, check, status raw, status through."""
    rows = []
    for scenario, check in sorted(raw.keys() | through.keys()):
        before, after = raw.get((scenario, check), []), through.get((scenario, check), [])
        for index in range(max(len(before), len(after))):
            was = before[index] if index < len(before) else "missing"
            now = after[index] if index < len(after) else "missing"
            if was != now and not {was, now} <= {"INFO", "missing"}:
                rows.append((scenario, check, was, now))
    return rows


def is_worse(was: str, now: str, allowed: str) -> bool:
    """A check that only the gateway's run has is bad if it did not succeed."""
    return RANKS[now] > max(0 if was == "missing" else RANKS[was], RANKS[allowed])


def score(verdicts: Verdicts) -> tuple[int, int]:
    """How many checks succeeded, of how many that gave a verdict."""
    counts = collections.Counter(status for row in verdicts.values() for status in row)
    return counts["SUCCESS"], counts["SUCCESS"] + counts["WARNING"] + counts["FAILURE"]


def judge(arguments: argparse.Namespace, spec: str, out: pathlib.Path) -> bool:
    raw = run(arguments.raw, spec, arguments.scenario, out / spec / "raw")
    through = run(arguments.through, spec, arguments.scenario, out / spec / "through")
    rows = compare(raw, through)
    allowed = dict(arguments.allow)
    worse = 0
    for scenario, check, was, now in rows:
        is_bad = is_worse(was, now, allowed.get((scenario, check), "SUCCESS"))
        worse += is_bad
        mark = "!" if is_bad else " "
        print(f"{mark} {spec} {scenario:<44} {check:<56} {was} -> {now}")
    (passed, total), (kept, rest) = score(raw), score(through)
    print(f"{spec}: raw {passed}/{total}, through {kept}/{rest}, differences {len(rows)}")
    return total > 0 and worse == 0


def exception(text: str) -> tuple[tuple[str, str], str]:
    """Parses SCENARIO/CHECK:STATUS."""
    where, _, status = text.rpartition(":")
    scenario, _, check = where.partition("/")
    if not scenario or not check or status not in RANKS:
        raise argparse.ArgumentTypeError(f"{text} is not SCENARIO/CHECK:STATUS")
    return (scenario, check), status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--raw", required=True, help="URL of the server")
    parser.add_argument("--through", required=True, help="URL of the gateway in front of it")
    parser.add_argument("--spec", action="append", choices=SELECTIONS, help="default: all")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--allow", action="append", type=exception, default=[])
    parser.add_argument("--out", type=pathlib.Path, help="where to keep the suite's files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = arguments.out or pathlib.Path(scratch)
        base.mkdir(parents=True, exist_ok=True)
        # A directory of its own: the suite adds to what it finds.
        out = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=base))
        verdicts = [judge(arguments, spec, out) for spec in arguments.spec or SELECTIONS]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
