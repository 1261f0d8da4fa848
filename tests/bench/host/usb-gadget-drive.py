#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""usb-gadget-drive's NBD server beside nbdkit file, qemu-nbd and nbd-server, on this machine, by turns.

All serve one file of 1 GiB in memory, with flush and FUA on. Prints what it finds; `--rows FILE` is for tests/bench/run.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from costs import cpu_seconds  # noqa: E402
from rows import Row  # noqa: E402

GIB = 1 << 30
START_LIMIT = 10  # seconds
CLIENT_LIMIT = 60  # seconds
OURS, KIT = "usb-gadget-drive", "nbdkit"
SETUP = "libnbd-bin nbdcopy nbdkit nbdkit qemu-utils qemu-nbd nbd-server nbd-server fio fio".split()
# DESIGN section 12.
LEAST_MEAN, LEAST_OF_BEST, MOST_CPU = 1.0, 0.9, 1.1
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
OVERLAY = ("read 1M qd8 x1", "write 1M qd8 x1", "randread 4k qd32 x1", "randwrite 4k qd32 x1")


@dataclass
class Transport:
    """How clients reach the servers, and which cells are measured."""

    name: str
    cells: tuple
    judged: bool = True  # by the bars

    def server(self, who: str, binary: Path, image: Path, where: Path) -> tuple[list, str]:
        """Command and URI of a server; `where` is a folder of its own."""
        socket, config, tcp = where / "sock", where / "config", self.name == "tcp"
        port = 10809 + (OURS, KIT, "qemu-nbd", "nbd-server").index(who)
        uri = f"nbd://127.0.0.1:{port}/d" if tcp else f"nbd+unix:///d?socket={socket}"
        if who == OURS:
            place = ["--listen", f"127.0.0.1:{port}"] if tcp else ["--unix", socket]
            if self.name == "overlay":
                config.write_text(
                    f'state_dir = "{where}"\nruntime_dir = "{where}"\n[shares.d]\npath = "{image}"\nmode = "private"\n'
                )
                return [binary, "serve", "--config", config, *place], uri
            return [binary, "serve", "--share", f"d={image}", *place], uri
        if who == KIT:
            place = ["-i", "127.0.0.1", "-p", str(port)] if tcp else ["-U", socket]
            overlay = ["--filter=cow"] if self.name == "overlay" else []
            return ["nbdkit", "-f", *place, *overlay, "file", image], uri
        if who == "qemu-nbd":
            place = ["-b", "127.0.0.1", "-p", str(port)] if tcp else ["-k", socket]
            return ["qemu-nbd", "-f", "raw", "-t", "-e", "20", "-x", "d", *place, image], uri
        place = f"listenaddr = 127.0.0.1\nport = {port}" if tcp else f"unixsock = {socket}"
        config.write_text(
            f"[generic]\n{place}\n[d]\nexportname = {image}\nflush = true\nfua = true\nmulticonn = true\n"
        )
        return ["nbd-server", "-C", config, "-p", where / "pid"], uri


TRANSPORTS = (
    Transport("unix", (*FIO, *COPY)),
    Transport("tcp", (*FIO, *COPY)),
    Transport("overlay", OVERLAY, judged=False),
)


def client(cell: str, uri: str, seconds: int) -> list[str]:
    if cell in COPY:
        return ["nbdcopy", f"--connections={COPY[cell]}", uri, "null:"]
    rw, size, depth, jobs = FIO[cell]
    return [
        "fio", "--name=n", "--ioengine=nbd", f"--uri={uri}", f"--rw={rw}", f"--bs={size}", f"--iodepth={depth}",
        f"--numjobs={jobs}", "--group_reporting", "--thread", "--time_based", f"--runtime={seconds}", "--size=1G",
        "--randrepeat=0", "--norandommap", "--output-format=json",
    ]  # fmt: skip


def run(cell: str, uri: str, seconds: int) -> tuple[float, float]:
    """Rate (MB/s, or operations per second for 4k) and GiB moved."""
    start = time.monotonic()
    done = subprocess.run(
        client(cell, uri, seconds), capture_output=True, text=True, timeout=CLIENT_LIMIT, check=True
    )
    # fio's own rate counts what jobs that begin late do as if they had done it with the others.
    took = time.monotonic() - start
    if cell in COPY:
        return GIB / 1e6 / took, 1.0
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = job["write" if "write" in cell else "read"]
    rate = side["total_ios"] if "4k" in cell else side["io_bytes"] / 1e6
    return rate / took, side["io_bytes"] / GIB


def listens(uri: str) -> bool:
    return subprocess.run(["nbdinfo", "--size", uri], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def serving(transport: Transport, who: str, binary: Path, image: Path, where: Path):
    """A server; gives its process and its URI."""
    where.mkdir()
    command, uri = transport.server(who, binary, image, where)
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with contextlib.ExitStack() as ends:
        # nbdkit keeps its overlay in TMPDIR.
        child = subprocess.Popen(list(map(str, command)), env={**os.environ, "TMPDIR": str(where)}, **quiet)
        ends.callback(child.wait)
        ends.callback(child.terminate)
        end = time.monotonic() + START_LIMIT
        while not listens(uri):
            # nbd-server goes into the background.
            if time.monotonic() > end or who != "nbd-server" and child.poll() is not None:
                raise RuntimeError(f"{who} does not serve {uri}")
            time.sleep(0.05)
        pid = child.pid
        if who == "nbd-server":
            pid = int((where / "pid").read_text())
            ends.callback(os.kill, pid, signal.SIGTERM)
        yield pid, uri


def measure(options) -> tuple[list[dict], list[dict]]:
    """What each cell gave, and which gave nothing."""
    cells, failures = [], []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        image = Path(top) / "image"
        with image.open("wb") as file:
            for _ in range(GIB >> 20):
                file.write(os.urandom(1 << 20))
        for transport in TRANSPORTS:
            peers = options.peers.split(",") if transport.judged else [KIT]
            wanted = [cell for cell in transport.cells if re.search(options.only, f"{transport.name} {cell}")]
            if not wanted:
                continue
            with contextlib.ExitStack() as ends:
                running = {}
                for who in (OURS, *peers):
                    place = serving(transport, who, options.binary, image, Path(top) / f"{transport.name}-{who}")
                    running[who] = ends.enter_context(place)
                for cell in wanted:
                    try:
                        cells.append(one_cell(transport, cell, running, options))
                    except (subprocess.SubprocessError, RuntimeError) as error:
                        failures.append({"name": f"{transport.name}, {cell}", "why": str(error)})
                        print(f"{transport.name}, {cell}: {error}", file=sys.stderr)
    return cells, failures


def one_cell(transport: Transport, cell: str, running: dict, options) -> dict:
    rates, costs = {who: [] for who in running}, {who: [] for who in running}
    for at in range(options.rounds):
        for who in list(running)[:: 1 if at % 2 == 0 else -1]:
            pid, uri = running[who]
            before = cpu_seconds(pid)
            try:
                rate, work = run(cell, uri, options.seconds)
            except subprocess.CalledProcessError:
                # nbd-server has a short queue: of 16 connections at once it may refuse some.
                if who == OURS:
                    raise
                continue
            rates[who].append(rate)
            costs[who].append((cpu_seconds(pid) - before) / work)
    found = {"name": f"{transport.name}, {cell}", "cell": cell, "judged": transport.judged}
    found["rate"] = {who: median(several) for who, several in rates.items() if several}
    found["cpu"] = {who: median(several) for who, several in costs.items() if several}
    if len(found["rate"]) < 2:
        raise RuntimeError("no peer can do it")
    uri = re.sub("socket=.*", "socket=SOCKET", running[OURS][1])
    found["command"] = " ".join(client(cell, uri, options.seconds))
    show(found)
    return found


def show(cell: dict) -> None:
    text = [f"{who} {rate:.0f} ({cell['cpu'][who]:.2f})" for who, rate in cell["rate"].items()]
    print(f"{cell['name']:30} {'  '.join(text)}", flush=True)


def rows(cells: list[dict]) -> list[Row]:
    """The table's; CPU is the server's alone."""
    made, ratios = [], []
    for cell in cells:
        rate, cost = cell["rate"], cell["cpu"]
        peers = [who for who in rate if who != OURS]
        best = max(peers, key=rate.get)
        cheapest = min(peers, key=cost.get)
        unit = "per s" if "4k" in cell["cell"] else "MB/s"
        bars = {"at_least": LEAST_OF_BEST} if cell["judged"] else {}
        others = ", ".join(f"{who} {rate[who]:.0f}" for who in peers)
        made.append(Row(cell["name"], unit, rate[OURS], cell["command"], rate[best], note=f"{others}; more is better", **bars))
        bars = {"at_most": MOST_CPU} if cell["judged"] else {}
        others = ", ".join(f"{who} {cost[who]:.2f}" for who in peers)
        name = f"{cell['name']}: CPU of the server"
        made.append(Row(name, "s/GiB", cost[OURS], "as above", cost[cheapest], note=others, **bars))
        if cell["judged"] and KIT in rate:
            ratios.append(rate[OURS] / rate[KIT])
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        note = f"{min(ratios):.2f} to {max(ratios):.2f}"
        name = f"geometric mean of ours / nbdkit, {len(ratios)} cells"
        made.insert(0, Row(name, "", mean, "all of the commands below", at_least=LEAST_MEAN, note=note))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="usb-gadget-drive, built for release")
    parser.add_argument("--seconds", type=int, default=1, help="of one run of fio, which takes no fractions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="REGEX", default="", help="these cells alone, such as 'unix read'")
    parser.add_argument("--peers", default="nbdkit,qemu-nbd,nbd-server", help="these alone, with commas")
    parser.add_argument("--full", action="store_true", help="five rounds of two seconds")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    if options.full:
        options.seconds, options.rounds = 2, 5
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    subprocess.run([BENCH.parent / "lab/setup", *SETUP], check=True)
    cells, failures = measure(options)
    made = rows(cells)
    for row in made:
        figures = row.figures()
        if figures["met"] is False:
            print(f"short: {row.name}: {figures['ratio'] or row.ours:.2f}")
    if options.rows:
        options.rows.write_text(json.dumps({"rows": [row.figures() for row in made], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
