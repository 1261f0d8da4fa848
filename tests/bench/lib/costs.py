# SPDX-License-Identifier: MIT OR Apache-2.0
"""What processes and their descendants cost, from /proc."""

import contextlib
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pids):
    """Processes and their descendants."""
    found = list(pids)
    for one in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def cpu_seconds(*pids):
    """Processor time, user and system, with that of children that have ended."""
    ticks = 0
    for one in family(pids):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def pss_mib(*pids):
    """Memory in MiB; what processes share is counted once in all."""
    kib = 0
    for one in family(pids):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib / 1024


def wakeups(*pids):
    """How often their threads gave up the processor by themselves, and so woke up again."""
    count = 0
    for one in family(pids):
        for task in Path(f"/proc/{one}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    count += int(line.split()[1])
    return count
