#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What smbus-monitor costs a blade of a group of 8, with some 60 metrics at one a second, beside node_exporter (asked once a
second) and collectd, each by itself in the same minute. As root. Programs that are not installed are left out, and said."""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from rows import Row

TICKS = os.sysconf("SC_CLK_TCK")
NAME = "smbus-monitor, group of 8, metrics at 1 s"


def processes(pid):
    """A process and its descendants."""
    found = [pid]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children")
        if children.exists():
            found += map(int, children.read_text().split())
    return found


def used(pid):
    """Processor time in seconds, and voluntary switches of all threads, which are times that it woke up."""
    ticks = wakes = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        for task in Path(f"/proc/{one}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    wakes += int(line.split()[1])
    return ticks / TICKS, wakes


def memory(pid):
    kib = 0
    for one in processes(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                kib += int(line.split()[1])
    return kib / 1024


def cost(pids, seconds):
    """Percent of a core, MiB, and wake-ups in a second: of the median process."""
    before = [used(pid) for pid in pids]
    time.sleep(seconds)
    after = [used(pid) for pid in pids]
    share = median((now[0] - was[0]) / seconds * 100 for was, now in zip(before, after))
    wakes = median((now[1] - was[1]) / seconds for was, now in zip(before, after))
    return share, median(map(memory, pids)), wakes


def rack_module():
    path = str(BENCH.parent / "scenarios/monitor-rack")
    loader = importlib.machinery.SourceFileLoader("monitor_rack", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("monitor_rack", loader))
    loader.exec_module(module)
    return module


def ours(seconds):
    from types import SimpleNamespace

    rack = rack_module().Rack(SimpleNamespace(members=8, bus=False, interval="1s", per_cpu=True))
    try:
        for member in rack.members:
            member.start()
        rack.wait("all are here", rack.manager, 60)
        time.sleep(8)
        count = median(len(member.sensors(str(member.number))) for member in rack.members)
        manager = rack.agreed()
        figures = cost([member.process.pid for member in rack.members if member is not manager], seconds)
        return count, figures, cost([manager.process.pid], seconds)
    finally:
        rack.close()


def node_exporter(seconds):
    program = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
    if not program:
        return None
    process = subprocess.Popen([program, "--web.listen-address=127.0.0.1:19100"], stderr=subprocess.DEVNULL)
    stop = threading.Event()

    def scrape():
        while not stop.wait(1):
            try:
                urllib.request.urlopen("http://127.0.0.1:19100/metrics", timeout=1).read()
            except OSError:
                pass

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        time.sleep(3)
        return cost([process.pid], seconds)
    finally:
        stop.set()
        process.kill()
        process.wait()


def collectd(seconds):
    program = shutil.which("collectd")
    if not program:
        return None
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "collectd.conf"
        plugins = ["cpu", "memory", "disk", "interface", "load", "df", "sensors", "csv"]
        text = f'Interval 1\nBaseDir "{folder}"\nPIDFile "{folder}/pid"\n'
        text += "".join(f"LoadPlugin {plugin}\n" for plugin in plugins)
        config.write_text(text + f'<Plugin csv>\nDataDir "{folder}/csv"\n</Plugin>\n')
        process = subprocess.Popen([program, "-f", "-C", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(3)
            return cost([process.pid], seconds)
        finally:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="beside it is midplane, built for release")
    parser.add_argument("--full", action="store_true", help="for a minute each")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["PATH"] = f"{options.binary.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    seconds = 60 if options.full else 15
    rows, failures = [], []
    try:
        count, figures, manager = ours(seconds)
    except (SystemExit, OSError) as error:
        failures.append({"name": NAME, "why": str(error)})
    else:
        command = "tests/bench/host/smbus-monitor.py target/release/smbus-monitor"
        for name, (share, rss, wakes) in (("a blade", figures), ("the manager", manager)):
            note = f"{count:.0f} metrics of its own"
            rows.append(Row(f"{name}: processor", "% of a core", share, command, at_most=0.5, note=note))
            rows.append(Row(f"{name}: memory", "MiB", rss, command, at_most=12, note=note))
            rows.append(Row(f"{name}: wake-ups", "/s", wakes, command, note="all threads"))
        for peer in (node_exporter, collectd):
            got = peer(seconds)
            if not got:
                print(f"{peer.__name__} is not installed", flush=True)
                continue
            for what, unit, own, other in zip(("processor", "memory", "wake-ups"), ("% of a core", "MiB", "/s"), figures, got):
                rows.append(Row(f"a blade beside {peer.__name__}: {what}", unit, own, command, peer=other))
    for row in rows:
        beside = "" if row.peer is None else f" beside {row.peer:.2f}"
        print(f"{row.name:<50} {row.ours:8.2f}{beside} {row.unit}  {row.note}", flush=True)
    if options.rows:
        options.rows.write_text(json.dumps({"rows": [row.figures() for row in rows], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
