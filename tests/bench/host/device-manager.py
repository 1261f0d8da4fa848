#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""10,000 devices at 8 and at 64 managers, each machine a network namespace of this one: how soon all is known, how soon a finder is told,
what a manager and a unit cost, and how many leases are granted in a second. Units look at folders that stand for sysfs. As root."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from costs import cpu_seconds
from devices import ask, grant, load_rack, release
from rows import Row

RACK = load_rack()
# A printer: device, configuration, interface (USB 2.0, 9.6).
DESCRIPTORS = bytes.fromhex("12010002000000406b1d0401010001020301" "09021200010100c032" "090400000007010200")
# Plugs a device in, tells of it as udev does, and prints when it began, in seconds of the monotonic clock.
PLUG = """
import os, socket, sys, time
bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
bell.bind((0, 0))
for line in sys.stdin:
    begin = time.monotonic()
    os.symlink(*line.split())
    bell.sendto(b"add@/devices/x\\0ACTION=add\\0SUBSYSTEM=usb\\0", (0, 2))
    print(begin, flush=True)
"""


class Machine(RACK.Machine):
    """One whose unit sees what is in a folder."""

    def __init__(self, rack, number):
        super().__init__(rack, number)
        self.sys = os.path.join(self.root, "sys")
        self.bus = os.path.join(self.sys, "bus/usb/devices")
        os.makedirs(self.bus)

    def device(self, number, plugged=True):
        """The folder of a device, and where it is on the bus."""
        folder = os.path.join(self.sys, f"devices/hub/1-{number}")
        for inner in ("power", "ep_00", f"1-{number}:1.0/power", f"1-{number}:1.0/ep_01"):
            os.makedirs(os.path.join(folder, inner))
        texts = {"bDeviceClass": "00", "idVendor": "1d6b", "idProduct": "0104", "serial": f"{self.name}N{number}", "manufacturer": "Midplane lab", "product": "Printer", "authorized": "1"}
        for name, text in texts.items():
            RACK.write(os.path.join(folder, name), f"{text}\n")
        RACK.write(os.path.join(folder, "descriptors"), DESCRIPTORS)
        place = os.path.join(self.bus, f"1-{number}")
        if plugged:
            os.symlink(folder, place)
        return folder, place

    def start_unit(self):
        words = ["device-manager", "unit", "--root", self.root, "--list", self.rack.list, "--helper", self.rack.helper]
        # In the mounts that `ip netns exec` makes for it.
        words = ["ip", "netns", "exec", self.space, "sh", "-c", 'mount --bind "$0" /sys && exec "$@"', self.sys, *words]
        with open(self.log, "a") as log:
            self.processes["unit"] = subprocess.Popen(words, stdout=log, stderr=log)

    def figure(self, name):
        """One of those for Prometheus."""
        try:
            found = re.search(rf"^\w*{name}(?:\{{[^}}]*\}})? ([0-9.]+)$", ask(self.control, "GET", "/metrics"), re.M)
        except OSError:
            return None
        return float(found[1]) if found else None

    def knows(self, devices):
        return self.figure("devices") == devices


class Fleet:
    """Machines 1 to `managers` have managers, and 1 to `units` so many devices each."""

    def __init__(self, managers, units, each):
        self.folder = tempfile.mkdtemp(prefix="dm-")
        self.list, self.helper = os.path.join(self.folder, "group.toml"), os.path.join(self.folder, "helper.sock")
        for number in range(1, 65):
            RACK.run("ip", "netns", "del", f"dm{number}", ok=None)
        RACK.run("ip", "link", "del", "dmb", ok=None)
        RACK.run("ip", "link", "add", "dmb", "type", "bridge")
        RACK.run("ip", "link", "set", "dmb", "up")
        self.machines = [Machine(self, number) for number in range(1, max(managers, units) + 1)]
        self.managers, self.units, self.each = self.machines[:managers], self.machines[:units], each
        members = [f"[[member]]\nname = '{machine.name}'\naddresses = ['{machine.address}']\n" for machine in self.machines]
        RACK.write(self.list, "".join(members))
        for machine in self.machines:
            words = ["midplane", "key", "--root", machine.root]
            if machine.number == 1:
                RACK.run(*words, "create", "rack", "--name", machine.name)
            else:
                key = os.path.join(self.machines[0].root, "etc/midplane/group.key")
                RACK.run(*words, "join", "--offline", "--key", key, "--name", machine.name)
        for machine in self.units:
            for number in range(1, each + 1):
                machine.device(number)

    @property
    def devices(self):
        return len(self.units) * self.each

    def start(self, at_once):
        """Seconds until all managers know one another, and from there until each knows all devices; so many units start at once."""
        begin = time.monotonic()
        for machine in self.managers:
            machine.start("serve")
        for machine in self.managers:
            RACK.wait("the managers are one group", lambda machine=machine: machine.figure("managers") == len(self.managers), 120)
        grouped = time.monotonic()
        for first in range(0, len(self.units), at_once):
            units = self.units[first : first + at_once]
            for machine in units:
                machine.start_unit()
            known = (first + len(units)) * self.each
            self.everywhere(known, 60)
        return grouped - begin, time.monotonic() - grouped

    def everywhere(self, devices, limit):
        """One after another: to be asked often costs managers a lot."""
        for machine in self.managers:
            RACK.wait("all devices are known everywhere", lambda machine=machine: machine.knows(devices), limit)

    def close(self):
        for machine in self.machines:
            machine.close()
        RACK.run("ip", "link", "del", "dmb", ok=None)
        shutil.rmtree(self.folder, ignore_errors=True)


def cost(machines, part, seconds):
    """Percent of a core, and MiB, of the median one."""
    pids = [machine.processes[part].pid for machine in machines]

    def memory(pid):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024

    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(seconds)
    share = [(cpu_seconds(pid) - was) / seconds * 100 for pid, was in zip(pids, before)]
    return median(share), median(map(memory, pids))


def told(fleet, rounds):
    """From before a device is plugged in until a finder at another manager is told, in ms: median and worst."""
    near, far = fleet.units[0], fleet.managers[-1]
    finder = subprocess.Popen(far.words("find", "serial=blade1N9*", "--watch", "--json", "--socket", far.control), stdout=subprocess.PIPE, text=True)
    heard = {}
    ready = threading.Event()

    def listen():
        for line in finder.stdout:
            at = time.monotonic()
            if found := re.search(r'"serial":\s*"blade1N(\d+)"', line):
                heard[int(found[1])] = at
            ready.set()

    plugging = subprocess.Popen(["ip", "netns", "exec", near.space, sys.executable, "-c", PLUG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    threading.Thread(target=listen, daemon=True).start()
    took = []
    try:
        # Some fit already: it listens.
        ready.wait(20)
        for turn in range(rounds):
            number = 90_000 + turn
            plugging.stdin.write(" ".join(near.device(number, plugged=False)) + "\n")
            plugging.stdin.flush()
            begin = float(plugging.stdout.readline())
            RACK.wait("the finder is told", lambda number=number: number in heard)
            took.append((heard[number] - begin) * 1000)
            # Not in step with what looks at all of sysfs now and then.
            time.sleep(0.37)
        for turn in range(rounds):
            os.unlink(os.path.join(near.bus, f"1-{90_000 + turn}"))
        fleet.everywhere(fleet.devices, 30)
    finally:
        for process in (finder, plugging):
            process.kill()
            process.wait()
    return median(took), max(took)


def grants(fleet, each, clients):
    """Leases granted and given back in a second, each client at a manager of its own, for devices of all units."""
    known = json.loads(ask(fleet.managers[0].control, "GET", "/v1/devices").partition("\r\n\r\n")[2])
    ids = sorted(one["device"]["id"] for one in known)
    lost = []

    def client(at):
        control = fleet.managers[at % len(fleet.managers)].control
        for number in range(each):
            lease = grant(control, ids[(at * each + number) * 7 % len(ids)])
            if lease is None:
                lost.append(at)
                return
            RACK.wait("it is given back", lambda lease=lease: release(control, lease))

    threads = [threading.Thread(target=client, args=(at,)) for at in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if lost:
        raise RACK.Failed("a lease was not granted")
    return clients * each / (time.monotonic() - begin)


def figures(managers, units, each, at_once, rounds):
    rows, fleet = [], Fleet(managers, units, each)

    def row(what, unit, ours, at_most=None, note=""):
        rows.append(Row(f"{managers} managers, {units * each} devices: {what}", unit, ours, "tests/bench/host/device-manager.py target/release/device-manager", at_most=at_most, note=note))

    try:
        grouped, known = fleet.start(at_once)
        row("all managers know all devices", "s", known, note=f"{units} units start, {at_once} at once; the group was whole after {grouped:.1f} s")
        time.sleep(3)
        for part, machines in (("serve", fleet.managers), ("unit", fleet.units)):
            share, memory = cost(machines, part, 10)
            name = "a manager" if part == "serve" else f"a unit with {each}"
            row(f"memory of {name}", "MiB", memory)
            row(f"processor of {name}, at rest", "% of a core", share)
        middle, worst = told(fleet, rounds)
        row("a finder elsewhere is told of a new device", "ms", middle, 100, f"worst {worst:.0f}; 30 of them a pause that lets a burst of events end")
        note = "all machines share the processors of this one"
        row("leases granted and given back, one client", "1/s", grants(fleet, 20 * rounds, 1), note=note)
        if managers <= 8:
            row("leases granted and given back, a client at each of 8", "1/s", grants(fleet, 10 * rounds, 8))
    except BaseException:
        for machine in fleet.machines[:2]:
            print(Path(machine.log).read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        fleet.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="beside it is midplane, built for release")
    parser.add_argument("--full", action="store_true", help="more rounds")
    parser.add_argument("--sizes", default="8x10x1000x10,64x64x157x4", help="managers, units, devices of each, and units that start at once")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["PATH"] = f"{options.binary.resolve().parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    rows, failures = [], []
    for size in options.sizes.split(","):
        try:
            made = figures(*map(int, size.split("x")), 21 if options.full else 7)
        except (RACK.Failed, OSError, ValueError) as error:
            failures.append({"name": f"devices {size}", "why": str(error)})
            print(f"{size}: {error}", file=sys.stderr)
            continue
        for one in made:
            print(f"{one.name:<80} {one.ours:8.1f} {one.unit}  {one.note}", flush=True)
        rows += made
    if options.rows:
        options.rows.write_text(json.dumps({"rows": [row.figures() for row in rows], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
