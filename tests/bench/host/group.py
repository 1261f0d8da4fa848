#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Groups of 2, 8, 32 and 64 members, each in a network namespace of this machine, on two networks: how soon all agree on
another manager, how soon a change is everywhere, and what a member costs. As root."""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import random
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from costs import cpu_seconds
from rows import Row

RECORDS, CHUNK = 10_000, 500  # of each member; in one request


def load_rack():
    path = str(BENCH.parent / "scenarios/group-rack")
    loader = importlib.machinery.SourceFileLoader("group_rack", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("group_rack", loader))
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
RACK = load_rack()


def make(members):
    return RACK.Rack(SimpleNamespace(members=members, loss=0, plain=True, extra=[], trials=[]))


def command(words):
    return f"PATH=target/release:$PATH tests/scenarios/group-rack --plain {words}"


def cost(rack, seconds):
    """Processor time of each member in percent of a core, and its memory in MiB, both of the median member."""

    def memory(member):
        with open(f"/proc/{member.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    before = [cpu_seconds(member.process.pid) for member in rack.members]
    time.sleep(seconds)
    share = [(cpu_seconds(member.process.pid) - was) / seconds * 100 for member, was in zip(rack.members, before)]
    return median(share), median(memory(member) for member in rack.members)


def told_of_records(member, owner, since):
    told = (event["us"] for event in member.events() if event.get("records") == owner)
    return next((at for at in told if at >= since), None)


def change_to_all(rack, rounds):
    """From before the request that makes a change until the last member has it, in ms."""
    took = []
    for turn in range(rounds):
        owner = random.choice(rack.members)
        others = [member for member in rack.members if member is not owner]
        # Whatever else they had to tell has come.
        time.sleep(0.3)
        since = RACK.now_us()
        owner.ask("/v1/records", "PUT", {"fan": str(turn)})

        def all_have():
            times = [told_of_records(member, owner.name, since) for member in others]
            return max(times) if all(times) else None

        took.append((rack.wait("all have the change", all_have) - since) / 1000)
    return median(took)


def failover(rack, rounds, end, back):
    """Median and worst time until all agree on another manager, in ms."""
    took = []
    for _ in range(rounds):
        rack.wait("others are eligible", lambda: rack.eligible(min(3, len(rack.members))))
        manager = rack.named(rack.wait("all are here", rack.whole, 60))
        others = [member for member in rack.members if member is not manager]
        since = RACK.now_us()
        end(manager)
        took.append(rack.agree(since, others))
        back(manager)
    return median(took), max(took)


def group(members, rounds):
    rack, rows = make(members), []

    def row(what, unit, ours, at_most=None, note=""):
        name = f"{members} members: {what}"
        rows.append(Row(name, unit, ours, command(f"--members {members} kill lose"), at_most=at_most, note=note))

    try:
        begin = time.monotonic()
        for member in rack.members:
            member.start()
        rack.wait("all are here", rack.whole, 120)
        row("all are here after the start", "ms", (time.monotonic() - begin) * 1000)
        time.sleep(3)
        share, memory = cost(rack, 5)
        row("processor, at rest", "% of a core", share)
        row("memory", "MiB", memory)
        row("a change is everywhere", "ms", change_to_all(rack, 5), 100 if members == 8 else None)
        middle, worst = failover(rack, rounds, lambda m: m.kill(), lambda m: m.start())
        row("manager killed, all agree", "ms", middle, 100 if members == 8 else None, f"worst {worst:.0f}")
        middle, worst = failover(rack, rounds, lambda m: m.cut(True), lambda m: m.cut(False))
        row("manager's machine lost, all agree", "ms", middle, 500 if members == 8 else None, f"worst {worst:.0f}")
    finally:
        rack.close()
    return rows


def catch_up():
    """A member that comes to seven others with many records each."""
    rack = make(8)
    try:
        for member in rack.members:
            member.start()
        rack.wait("all are here", rack.whole)
        for member in rack.members:
            for first in range(0, RECORDS, CHUNK):
                records = {f"device {number}": f"{number:0>60}" for number in range(first, first + CHUNK)}
                member.ask("/v1/records", "PUT", records)
        last = rack.members[-1]

        def has_all():
            report = last.report()
            held = [other["records"] for other in report["members"] if other["current"]] if report else []
            return len(held) == 7 and min(held) >= RECORDS

        rack.wait("all records are everywhere", has_all, 60)
        last.kill()
        begin = time.monotonic()
        last.start()
        rack.wait("it has them all again", has_all, 60)
        took = (time.monotonic() - begin) * 1000
        share, memory = cost(rack, 3)
    finally:
        rack.close()
    name = f"8 members with {RECORDS} records each"
    return [
        Row(f"{name}: join and catch up", "ms", took, command("kill"), note="looked at each 100 ms"),
        Row(f"{name}: memory", "MiB", memory, command("kill"), note=f"{share:.1f} % of a core"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="beside it are group-member and midplane, built for release")
    parser.add_argument("--full", action="store_true", help="fifty rounds")
    parser.add_argument("--sizes", default="2,8,32,64")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    os.environ["PATH"] = f"{options.binary.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    rows, failures = [], []
    parts = [lambda size=int(size): group(size, 50 if options.full else 5) for size in options.sizes.split(",")]
    for part in [*parts, catch_up]:
        try:
            made = part()
        except (SystemExit, OSError) as error:
            failures.append({"name": "group", "why": str(error)})
            continue
        for row in made:
            print(f"{row.name:<60} {row.ours:8.1f} {row.unit}  {row.note}", flush=True)
        rows += made
    if options.rows:
        found = {"rows": [row.figures() for row in rows], "failures": failures}
        options.rows.write_text(json.dumps(found))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
