# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the measurements of all programs share: rows, and in the guest pinned commands."""

import json
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

OUT = Path("/mnt/out/rows.json")
CPU = "0"  # what is pinned runs on this virtual CPU
LIMIT = 200  # seconds for one command


class CannotMeasure(Exception):
    """Something stood in the way of a measurement."""


@dataclass
class Row:
    """One line of the table. `ratio`, which is ours / peer, and `met` are worked out from the rest."""

    name: str
    unit: str
    ours: float
    command: str  # to repeat it by hand in tests/lab/shell
    peer: float | None = None
    at_most: float | None = None  # the bar: of the ratio where there is a peer, else of ours
    at_least: float | None = None  # the same, where more is better
    note: str = ""  # what has to be known to judge the figures

    def figures(self) -> dict:
        ratio = self.ours / self.peer if self.peer else None
        judged = self.ours if self.peer is None else ratio
        met = None
        if self.at_most is not None:
            met = judged <= self.at_most
        elif self.at_least is not None:
            met = judged >= self.at_least
        return {**asdict(self), "ratio": ratio, "met": met}


def output(*words, pinned: bool = True, limit: float = LIMIT) -> str:
    """The standard output of a command that must succeed."""
    argv = [*(("taskset", "-c", CPU) if pinned else ()), *map(str, words)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotMeasure(f"no end within {limit} s: {' '.join(argv)}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-500:]
        raise CannotMeasure(f"status {done.returncode}: {' '.join(argv)}: {said}")
    return done.stdout


def pin(pid: int) -> None:
    """Moves all threads of a process to the CPU where the pinned commands run."""
    output("taskset", "-a", "-c", "-p", CPU, pid, pinned=False)


def interleaved(rounds: int, ours, peer) -> tuple[list, list]:
    """Both sides by turns, each first every other time, so that neither gains by when it runs."""
    results = ([], [])
    for at in range(rounds):
        for side in (0, 1) if at % 2 == 0 else (1, 0):
            results[side].append((ours, peer)[side]())
    return results


def medians(pair: tuple[list, list]) -> tuple[float, float]:
    return median(pair[0]), median(pair[1])


def measure(*parts) -> None:
    """Runs each part, a function that returns rows; keeps what there is even when another fails."""
    rows, failures = [], []
    for part in parts:
        print(f"measuring: {part.__doc__.splitlines()[0]}", flush=True)
        try:
            rows += [row.figures() for row in part()]
        except Exception as error:  # whatever it was, the other rows are worth having
            if not isinstance(error, CannotMeasure):
                traceback.print_exc()
            failures.append({"name": part.__doc__.splitlines()[0], "why": str(error)})
        OUT.write_text(json.dumps({"rows": rows, "failures": failures}))
    sys.exit(1 if failures else 0)
