#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What smbus-monitor costs a blade of a group of 8, with some 60 metrics at one a second, beside node_exporter (asked once a
second), collectd and netdata, which run at the same time, in the same windows. As root. Of those, Debian's packages
prometheus-node-exporter, collectd-core and netdata-core, such as are not installed are left out, and said."""

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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from costs import cpu_seconds, pss_mib, wakeups
from rows import Row

NAME = "smbus-monitor, group of 8, metrics at 1 s"


def costs(sets, seconds):
    """For each set of processes percent of a core, MiB, and wake-ups in a second: of its median process, all at once."""

    def used(pid):
        return cpu_seconds(pid), wakeups(pid)

    before = {name: [used(pid) for pid in pids] for name, pids in sets.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    out = {}
    for name, pids in sets.items():
        pairs = list(zip(before[name], map(used, pids)))
        share = median((now[0] - was[0]) / passed * 100 for was, now in pairs)
        wakes = median((now[1] - was[1]) / passed for was, now in pairs)
        out[name] = (share, median(map(pss_mib, pids)), wakes)
    return out


def rack_module():
    path = str(BENCH.parent / "scenarios/monitor-rack")
    loader = importlib.machinery.SourceFileLoader("monitor_rack", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("monitor_rack", loader))
    loader.exec_module(module)
    return module


@contextmanager
def program(argv):
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def node_exporter(_):
    """As Prometheus would ask it."""
    stop = threading.Event()

    def scrape():
        while not stop.wait(1):
            try:
                urllib.request.urlopen("http://127.0.0.1:19100/metrics", timeout=1).read()
            except OSError:
                pass

    with program(["prometheus-node-exporter", "--web.listen-address=127.0.0.1:19100"]) as pid:
        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield pid
        finally:
            stop.set()
            thread.join()


@contextmanager
def collectd(folder):
    config = folder / "collectd.conf"
    plugins = ["cpu", "memory", "disk", "interface", "load", "df", "uptime", "csv"]
    text = f'Interval 1\nBaseDir "{folder}"\nPIDFile "{folder}/pid"\n'
    text += "".join(f"LoadPlugin {plugin}\n" for plugin in plugins)
    config.write_text(text + f'<Plugin csv>\nDataDir "{folder}/csv"\n</Plugin>\n')
    with program(["collectd", "-f", "-C", config]) as pid:
        yield pid


@contextmanager
def netdata(folder):
    """With its plugins, a database in memory, and without what learns."""
    config = folder / "netdata.conf"
    kinds = "".join(f"{kind} = {folder}\n" for kind in ("cache", "lib", "log", "home", "lock"))
    config.write_text(
        f"[directories]\n{kinds}[db]\nmode = ram\nupdate every = 1\n[ml]\nenabled = no\n"
        "[global]\nrun as user = root\n[web]\nbind to = 127.0.0.1:19999\n"
    )
    with program(["netdata", "-D", "-c", config]) as pid:
        yield pid


PEERS = {"prometheus-node-exporter": node_exporter, "collectd": collectd, "netdata": netdata}


def measured(seconds, rounds):
    """How many metrics a blade has, and the median costs of a blade, the manager, and each peer."""
    rack = rack_module().Rack(SimpleNamespace(members=8, bus=False, interval="1s", per_cpu=True, links=5))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        running.callback(rack.close)
        for member in rack.members:
            member.start()
        rack.wait("all are here", rack.manager, 60)
        sets = {}
        for name, start in PEERS.items():
            if not shutil.which(name):
                print(f"{name} is not installed", flush=True)
                continue
            own = Path(folder) / name
            own.mkdir()
            sets[name] = [running.enter_context(start(own))]
        time.sleep(8)  # what programs do at their start
        manager = rack.agreed()
        sets["the manager"] = [manager.process.pid]
        sets["a blade"] = [member.process.pid for member in rack.members if member is not manager]
        count = median(len(member.sensors(str(member.number))) for member in rack.members)
        windows = [costs(sets, seconds) for _ in range(rounds)]
    return count, {name: tuple(map(median, zip(*(window[name] for window in windows)))) for name in sets}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="beside it is midplane, built for release")
    parser.add_argument("--full", action="store_true", help="for three windows of a minute")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["PATH"] = f"{options.binary.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    seconds, rounds = (60, 3) if options.full else (10, 3)
    rows, failures = [], []
    try:
        count, found = measured(seconds, rounds)
    except (SystemExit, OSError) as error:
        failures.append({"name": NAME, "why": str(error)})
    else:
        command = "tests/bench/host/smbus-monitor.py target/release/smbus-monitor"
        note = f"{count:.0f} metrics of its own"
        figures = found["a blade"]
        for name in ("a blade", "the manager"):
            share, pss, wakes = found.pop(name)
            rows.append(Row(f"{name}: processor", "% of a core", share, command, at_most=0.5, note=note))
            rows.append(Row(f"{name}: memory", "MiB", pss, command, at_most=12, note="PSS"))
            rows.append(Row(f"{name}: wake-ups", "/s", wakes, command, note="all threads"))
        for peer, got in found.items():
            for what, unit, own, other in zip(("processor", "memory", "wake-ups"), ("% of a core", "MiB", "/s"), figures, got):
                rows.append(Row(f"a blade beside {peer}: {what}", unit, own, command, peer=other))
    for row in rows:
        beside = "" if row.peer is None else f" beside {row.peer:.2f}"
        print(f"{row.name:<50} {row.ours:8.2f}{beside} {row.unit}  {row.note}", flush=True)
    if options.rows:
        options.rows.write_text(json.dumps({"rows": [row.figures() for row in rows], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
