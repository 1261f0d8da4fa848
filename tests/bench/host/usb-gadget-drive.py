#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""usb-gadget-drive's NBD server beside nbdkit file, qemu-nbd and nbd-server, on this machine, by turns.

All serve one file of 1 GiB in memory, with flush and FUA on. Prints a table; `--json FILE` writes the figures too.
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

GIB = 1 << 30
START_LIMIT = 10  # seconds
CLIENT_LIMIT = 120  # seconds
OURS = "usb-gadget-drive"
# Name: options of fio. The engine opens one connection per job.
FIO = {
    "read 1M qd8 x1": ("read", "1M", 8, 1),
    "read 1M qd2 x16": ("read", "1M", 2, 16),
    "write 1M qd8 x1": ("write", "1M", 8, 1),
    "randread 4k qd1 x1": ("randread", "4k", 1, 1),
    "randread 4k qd32 x1": ("randread", "4k", 32, 1),
    "randread 4k qd2 x16": ("randread", "4k", 2, 16),
    "randwrite 4k qd32 x1": ("randwrite", "4k", 32, 1),
}
COPY = {"nbdcopy 1 connection": 1, "nbdcopy 4 connections": 4}


def servers(binary: str, image: Path, where: Path, tcp: int | None) -> dict:
    """Command and URI of each server."""
    found = {}
    for at, name in enumerate((OURS, "nbdkit", "qemu-nbd", "nbd-server")):
        socket, port = where / f"{name}.sock", (tcp or 0) + at
        uri = f"nbd://127.0.0.1:{port}/d" if tcp else f"nbd+unix:///d?socket={socket}"
        config = where / "nbd-server.conf"
        if name == OURS:
            place = ["--listen", f"127.0.0.1:{port}"] if tcp else ["--unix", str(socket)]
            command = [binary, "serve", "--share", f"d={image}", *place]
        elif name == "nbdkit":
            place = ["-i", "127.0.0.1", "-p", str(port)] if tcp else ["-U", str(socket)]
            command = ["nbdkit", "-f", *place, "file", str(image)]
        elif name == "qemu-nbd":
            place = ["-b", "127.0.0.1", "-p", str(port)] if tcp else ["-k", str(socket)]
            command = ["qemu-nbd", "-f", "raw", "-t", "-e", "20", "-x", "d", *place, str(image)]
        else:
            place = f"listenaddr = 127.0.0.1\nport = {port}" if tcp else f"unixsock = {socket}"
            config.write_text(
                f"[generic]\n{place}\n[d]\nexportname = {image}\nflush = true\nfua = true\nmulticonn = true\n"
            )
            command = ["nbd-server", "-C", str(config), "-p", str(where / "nbd-server.pid")]
        found[name] = (command, uri)
    return found


def cpu(pid: int) -> float:
    """Seconds of a process and of what it has forked."""
    total = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for one in [pid, *children]:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def fio(uri: str, how: tuple, seconds: float) -> tuple[float, float]:
    """Rate (MB/s, or operations per second for 4k) and GiB moved."""
    rw, size, depth, jobs = how
    command = [
        "fio", "--name=n", "--ioengine=nbd", f"--uri={uri}", f"--rw={rw}", f"--bs={size}", f"--iodepth={depth}",
        f"--numjobs={jobs}", "--group_reporting", "--thread", "--time_based", f"--runtime={seconds}", "--size=1G",
        "--randrepeat=0", "--norandommap", "--output-format=json",
    ]  # fmt: skip
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_LIMIT, check=True)
    # fio's own rate counts what jobs that begin late do as if they had done it with the others.
    took = time.monotonic() - start
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    if size == "4k":
        return side["total_ios"] / took, side["total_ios"]
    return side["io_bytes"] / 1e6 / took, side["io_bytes"] / GIB


def copy(uri: str, connections: int, _seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    command = ["nbdcopy", f"--connections={connections}", uri, "null:"]
    subprocess.run(command, timeout=CLIENT_LIMIT, check=True)
    return GIB / 1e6 / (time.monotonic() - start), 1.0


def wait_for(uri: str, child: subprocess.Popen | None) -> None:
    end = time.monotonic() + START_LIMIT
    while subprocess.run(["nbdinfo", "--size", uri], capture_output=True, check=False).returncode:
        if (child and child.poll() is not None) or time.monotonic() > end:
            sys.exit(f"bench: nobody serves {uri}")
        time.sleep(0.05)


def measure(options) -> list[dict]:
    rows = []
    cells = {name: (fio, how) for name, how in FIO.items()} | {name: (copy, n) for name, n in COPY.items()}
    if options.only:
        cells = {name: cell for name, cell in cells.items() if re.search(options.only, name)}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as where, contextlib.ExitStack() as ends:
        image = Path(where) / "image"
        with image.open("wb") as file:
            for _ in range(GIB >> 20):
                file.write(os.urandom(1 << 20))
        running = {}
        for name, (command, uri) in servers(options.binary, image, Path(where), options.tcp).items():
            if options.peers and name not in (OURS, *options.peers.split(",")):
                continue
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            child = subprocess.Popen(command, **quiet)
            ends.callback(child.wait)
            ends.callback(child.terminate)
            wait_for(uri, None if name == "nbd-server" else child)
            pid = child.pid
            if name == "nbd-server":  # it goes into the background
                pid = int((Path(where) / "nbd-server.pid").read_text())
                ends.callback(os.kill, pid, signal.SIGTERM)
            running[name] = (pid, uri)
        for cell, (client, how) in cells.items():
            rates, costs = {name: [] for name in running}, {name: [] for name in running}
            for at in range(options.rounds):
                for name in list(running)[:: 1 if at % 2 == 0 else -1]:
                    pid, uri = running[name]
                    before = cpu(pid)
                    try:
                        rate, work = client(uri, how, options.seconds)
                    except subprocess.SubprocessError as error:
                        print(f"bench: {name}, {cell}: {error}", file=sys.stderr)
                        continue
                    rates[name].append(rate)
                    # s/GiB, or us for each operation
                    scale = 1e6 if "4k" in cell else 1
                    costs[name].append((cpu(pid) - before) / work * scale)
            row = {"cell": cell, "rate": {n: median(r) for n, r in rates.items() if r}}
            row["cpu"] = {n: median(c) for n, c in costs.items() if c}
            rows.append(row)
            show(row)
    return rows


def show(row: dict) -> None:
    rates, costs = row["rate"], row["cpu"]
    peers = [name for name in rates if name != OURS]
    text = [f"{name} {rates[name]:.0f} ({costs[name]:.2f})" for name in rates]
    best = rates[OURS] / max(rates[name] for name in peers)
    cost = costs[OURS] / max(1e-9, min(costs[name] for name in peers))
    kit = f"{rates[OURS] / rates['nbdkit']:.2f}" if "nbdkit" in rates else "-"
    print(f"{row['cell']:22} {'  '.join(text)}  | nbdkit {kit}  best {best:.2f}  cpu/best {cost:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="usb-gadget-drive, built for release")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one run of fio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tcp", type=int, metavar="PORT", help="over TCP, from this port on")
    parser.add_argument("--only", metavar="REGEX", help="these cells alone")
    parser.add_argument("--peers", help="these alone, with commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    ratios = [row["rate"][OURS] / row["rate"]["nbdkit"] for row in rows if "nbdkit" in row["rate"]]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"geometric mean of the ratios to nbdkit: {mean:.2f} (bar: 1.0)")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
