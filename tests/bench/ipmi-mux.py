#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""ipmi-mux beside the kernel's own node, in one guest. The daemon and what uses it are pinned to one
virtual CPU: without KVM two of them lose most of their time waking each other."""

import ast
import contextlib
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, "/mnt/tests/bench/lib")
from rows import CPU, CannotMeasure, Row, interleaved, measure, medians, output, pin

OURS, PEER = "/dev/ipmi/1", "/dev/ipmi0"
FULL = "--full" in sys.argv[1:]
START_LIMIT = 60  # seconds
FUSE_RELEASE = 18  # linux/fuse.h


def daemon() -> int:
    pid = int(output("systemctl", "show", "--property=MainPID", "--value", "ipmi-mux"))
    if not pid:
        raise CannotMeasure("ipmi-mux does not run")
    return pid


def load(node: str, *words) -> dict:
    """What ipmi-load found; it must have succeeded."""
    return json.loads(output("ipmi-load", "--node", node, "--json", *words))


def bmc(*words) -> dict:
    return json.loads(output("bmc-sim", "ctl", *words))


@contextlib.contextmanager
def ready(argv: list[str], stream: str, sign: str):
    """A program that has said `sign` on its `stream`; told to end when the block ends."""
    pipes = {"stdin": subprocess.PIPE, stream: subprocess.PIPE}
    with subprocess.Popen(["taskset", "-c", CPU, *argv], text=True, **pipes) as child:
        try:
            if not any(sign in line for line in getattr(child, stream)):
                raise CannotMeasure(f"{argv[0]} ended and did not say '{sign}'")
            yield child
        finally:
            child.terminate()


def fuse_requests():
    """FUSE requests per transaction"""
    few, many = 10, 60
    trace = Path("/tmp/fuse-requests")
    strace = ["strace", "-f", "-y", "-e", "trace=read", "-s", "8"]
    with ready([*strace, "-o", str(trace), "-p", str(daemon())], "stderr", "attached"):
        for commands in (few, many):
            load(OURS, "--commands", commands, "--limit", 60, "--echo")
    passes, seen = [], 0
    for text in re.findall(r'read\(\d+</dev/cuse>, ("(?:[^"\\]|\\.)*")', trace.read_text()):
        # struct fuse_in_header: length, opcode. After FUSE_RELEASE the next client begins.
        opcode = int.from_bytes(ast.literal_eval("b" + text)[4:8], "little")
        seen += 1
        if opcode == FUSE_RELEASE:
            passes.append(seen)
            seen = 0
    if len(passes) != 2:
        raise CannotMeasure(f"{len(passes)} clients seen where there were 2")
    return [
        Row(
            "FUSE requests per transaction",
            "requests",
            (passes[1] - passes[0]) / (many - few),
            "strace -f -y -e trace=read -p $(pidof ipmi-mux), while: "
            f"ipmi-load --node {OURS} --commands {many} --echo",
            at_most=8,
            note=f"from {few} and {many} transactions; opening and closing cancel out",
        )
    ]


def latency():
    """p50 of Get Device ID, one handle, BMC at 3 ms"""
    bmc("service-time", 3)

    def p50(node):
        return load(node, "--seconds", 3, "--warmup", 5)["latency_us"]["p50"] / 1000

    ours, peer = medians(interleaved(5, lambda: p50(OURS), lambda: p50(PEER)))
    command = f"taskset -c {CPU} ipmi-load --node {OURS} --seconds 3 --warmup 5"
    return [Row(latency.__doc__, "ms", ours, command, peer, 1.35, "5 rounds of 3 s, pinned")]


def rate():
    """Uncacheable commands per second, 16 handles, BMC at 3 ms"""
    bmc("service-time", 3)

    def per_second(node):
        return load(node, "--handles", 16, "--seconds", 3, "--warmup", 1, "--echo")["rate_per_s"]

    ours, peer = medians(interleaved(3, lambda: per_second(OURS), lambda: per_second(PEER)))
    command = f"taskset -c {CPU} ipmi-load --node {OURS} --handles 16 --seconds 3 --warmup 1 --echo"
    return [Row(rate.__doc__, "per s", ours, command, peer, note="3 rounds of 3 s, pinned; more is better")]


def uncached():
    """p50 of a command that is never cached, one handle, BMC at 3 ms"""
    bmc("service-time", 3)

    def p50(node):
        return load(node, "--seconds", 3, "--warmup", 5, "--echo")["latency_us"]["p50"] / 1000

    ours, peer = medians(interleaved(5, lambda: p50(OURS), lambda: p50(PEER)))
    command = f"taskset -c {CPU} ipmi-load --node {OURS} --seconds 3 --warmup 5 --echo"
    return [Row(uncached.__doc__, "ms", ours, command, peer, 1.35, "5 rounds of 3 s, pinned")]


def polite():
    """p99 of one polite client under 64 that flood, against alone"""
    bmc("service-time", 3)
    one = ["--handles", 1, "--commands", 60, "--pause", 0.5, "--echo", "--warmup", 2]

    def p99():
        return load(OURS, *one)["latency_us"]["p99"] / 1000

    def flooded():
        argv = ["ipmi-load", "--node", OURS, "--handles", "64", "--seconds", "120", "--echo"]
        with subprocess.Popen(["taskset", "-c", CPU, *argv], stdout=subprocess.DEVNULL) as flood:
            try:
                return p99()
            finally:
                flood.terminate()

    ours, peer = medians(interleaved(2, flooded, p99))
    command = (
        f"ipmi-load --node {OURS} --handles 64 --seconds 120 --echo & "
        f"ipmi-load --node {OURS} --commands 60 --pause 0.5 --echo"
    )
    # Polite is who asks for less than a fair share: with 65 clients and 4.7 ms a command that is 3 a second.
    note = "2 rounds of 60 commands, 2 a second; all pinned to one virtual CPU"
    return [Row(polite.__doc__, "ms", ours, command, peer, 3, note)]


def sensor_lists():
    """All sensors listed by many clients at once"""
    clients, rounds = (28, 1) if FULL else (4, 2)

    def walk(node, count):
        """Seconds until all have ended, and what the BMC had to do for it."""
        bmc("stats", "--clear")
        number = node.removeprefix("/dev/ipmi").removeprefix("/")
        one = ["taskset", "-c", CPU, "ipmitool", "-d", number, "sdr", "list"]
        begun = time.monotonic()
        children = [
            subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(count)
        ]
        for child in children:
            lines = child.communicate()[0].count(b"\n")
            if child.returncode or lines < 100:
                raise CannotMeasure(f"{' '.join(one)}: status {child.returncode}, {lines} lines")
        return time.monotonic() - begun, bmc("stats")["total"]

    single = walk(PEER, 1)[1]
    ours, peer = interleaved(rounds, lambda: walk(OURS, clients), lambda: walk(PEER, clients))
    times = medians(([seconds for seconds, _ in ours], [seconds for seconds, _ in peer]))
    commands = medians(([count for _, count in ours], [single]))
    command = f"time (for i in $(seq {clients}); do taskset -c {CPU} ipmitool -d 1 sdr list & done; wait)"
    share = "" if FULL else "; the bar is for 28 clients, see --full"
    what = f"{clients} clients list 100 sensors at once"
    return [
        Row(f"{what}", "s", times[0], command, times[1], 0.2, f"{rounds} rounds, pinned{share}"),
        Row(
            f"{what}: BMC commands, against one walk",
            "commands",
            commands[0],
            f"bmc-sim ctl stats --clear; {command}; bmc-sim ctl stats",
            commands[1],
            1.2,
            "those of the kernel's driver among them",
        ),
    ]


def memory():
    """Resident memory with 1,000 open handles"""
    handles = 1000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * handles, max(hard, 2 * handles)))
    argv = ["ipmi-load", "--node", OURS, "--handles", str(handles), "--hold"]
    with ready(argv, "stdout", "ready"):
        status = Path(f"/proc/{daemon()}/status").read_text()
    resident = int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1])
    command = f"ulimit -n {2 * handles}; {' '.join(argv)} & grep VmRSS /proc/$(pidof ipmi-mux)/status"
    return [Row(memory.__doc__, "MiB", resident / 1024, command, at_most=16)]


if __name__ == "__main__":
    deadline = time.monotonic() + START_LIMIT
    while not Path(OURS).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    pin(daemon())
    # Memory first: what the other rows leave behind in the daemon is not the handles'.
    measure(memory, fuse_requests, latency, uncached, rate, polite, sensor_lists)
