# SPDX-License-Identifier: MIT OR Apache-2.0
"""BMCs, by `ipmi-mux` at both ends."""

import json
import os
import subprocess
import time

from device_rack.rack import Failed, note, real, run, wait, within, write


class Mux:
    """An ipmi-mux of its own: one node, and a BMC at the other end of a socket."""

    def __init__(self, rack, number, socket_path):
        self.rack, self.number, self.node = rack, number, f"/dev/ipmi/{number}"
        self.folder = os.path.join(rack.folder, f"mux{number}")
        os.makedirs(self.folder)
        nodes = f"[[nodes]]\nname = 'ipmi/{number}'\ngroup = 'root'\n"
        write(f"{self.folder}/mux.toml", f"runtime_dir = '{self.folder}/run'\n[bmc]\nvm = 'unix:{socket_path}'\ndeadline = '2s'\n{nodes}")
        self.start()

    def start(self):
        with open(f"{self.folder}/log", "a") as log:
            self.process = subprocess.Popen(["ipmi-mux", "serve", "--config", f"{self.folder}/mux.toml"], stdout=log, stderr=log)
        self.rack.others.append(self.process)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=15)

    def tool(self, *words, ok=(0,)):
        return run("ipmitool", "-I", "open", "-d", str(self.number), *words, ok=ok)

    def answers(self):
        # What a BMC is does not change: only its state is asked for each time.
        return os.path.exists(self.node) and self.tool("chassis", "power", "status", ok=None).returncode == 0


def bmc(machine, node):
    """Who has a BMC as this machine knows it; '' if nobody; None if it is not known."""
    for known in (machine.status() or {"devices": []})["devices"]:
        if known["device"]["found"]["path"] == node:
            leases = [f["lease"]["holder"]["machine"] for f in known["device"]["functions"] if f["lease"]]
            return leases[0] if leases else ""
    return None


def offer(rack, *nodes):
    """The unit is started again, and has these BMCs."""
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config + f"bmcs = {json.dumps(nodes)}\n")


def ipmi(rack):
    """A machine's BMC, by ipmitool elsewhere. What becomes of it when it hangs, goes, or is not reached."""
    vm, control, link = (os.path.join(rack.folder, name) for name in ("vm", "ctl", "bmc"))
    words = ["bmc-sim", "serve", "--vm", f"unix:{vm}", "--control", f"unix:{control}", "--service-time", "1", "--sensors", "12"]
    rack.others.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    wait("there is a BMC", lambda: os.path.exists(vm) and os.path.exists(control))

    def sim(*order):
        return json.loads(run("bmc-sim", "ctl", "--to", control, *order).stdout)

    near = Mux(rack, 31, vm)
    wait("its own machine has a node of it", near.answers)

    def refused(machine, *more, ok):
        rest = ["--root", machine.root, "--socket", machine.control, "--helper", rack.helper]
        return run(*machine.words("attach", "type=bmc", *more, *rest), ok=ok).stderr

    if rack.one.ask("find", "type=bmc") or bmc(rack.one, near.node) is not None:
        raise Failed("it is offered, though nobody said so")
    offer(rack, near.node)
    wait("it is known", lambda: all(bmc(m, near.node) == "" for m in rack.machines))
    if "not offered by the unit's configuration" not in refused(rack.two, ok=(75,)):
        raise Failed("the helper opens what is not offered by its own configuration")
    note("a BMC is nobody's until the configuration names its node, by the helper's own look as well")
    write(rack.helper_config, f"[unit]\nbmcs = {json.dumps([near.node, '/dev/ipmi0'])}\n")
    found = rack.four.ask("find", "type=bmc unit=blade1")
    if len(found) != 1 or found[0]["device"]["found"]["path"] != near.node:
        raise Failed(f"a finder is told of {found}")
    holder = rack.attached(rack.two, f"path={near.node}", "--keep", "--link", link)
    place = real(link)
    if os.stat(place).st_mode & 0o777 != 0o600 or place not in run(*rack.two.words("status", "--socket", rack.two.control)).stdout:
        raise Failed("others may connect to its socket, or nobody is told of it")
    far = Mux(rack, 32, link)
    wait("ipmitool is answered elsewhere", far.answers)
    if far.tool("mc", "info").stdout != near.tool("mc", "info").stdout:
        raise Failed("it is another BMC")
    names = [{row.split("|")[0] for row in mux.tool("sdr", "list").stdout.splitlines()} for mux in (near, far)]
    if names[0] != names[1] or len(names[0]) < 12:
        raise Failed(f"it has other sensors: {names}")
    note(f"ipmitool reads the same identity and {len(names[1])} sensors on two machines at once, without any device of the kernel between")

    def orders():
        return [entry for entry in sim("log")["entries"] if entry.get("command") == "00/02"]

    far.tool("chassis", "power", "cycle")
    if [entry["data"] for entry in orders()] != ["02"]:
        raise Failed(f"the BMC was told {orders()}")
    note("a power cycle that is ordered there is the BMC's here")
    for part in (["--function", "ipmi"], []):
        if "leased to uid 0 on blade2" not in refused(rack.four, *part, ok=(75,)):
            raise Failed("another is not told who has it")

    sim("fault", "hang")
    begin = time.monotonic()
    far.tool("chassis", "power", "status", ok=(1,))
    took = time.monotonic() - begin
    words = ["ipmitool", "-I", "open", "-d", "32", "chassis", "power", "status"]
    asking = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(6)]
    begin = time.monotonic()
    holder.stop()
    wait("it is nobody's lease", lambda: bmc(rack.three, near.node) == "", limit=10)
    free = time.monotonic() - begin
    wait("who asked is told", lambda: all(one.poll() is not None for one in asking), limit=10)
    # Far sooner than any BMC is given up; a busy processor runs eight programs meanwhile.
    within(f"it hangs: ipmitool is told after {took:.1f} s; given back meanwhile, it is free after {free:.1f} s", (took, 10), (free, 10))
    begin = time.monotonic()
    far.tool("chassis", "power", "status", ok=(1,))
    took = time.monotonic() - begin
    within(f"without a lease ipmitool is told after {took:.1f} s", (took, 10))
    if os.path.lexists(link):
        raise Failed("its socket is there still")
    sim("fault", "clear")
    wait("its own machine has it", near.answers)

    holder = rack.attached(rack.two, f"path={near.node}", "--function", "ipmi", "--keep", "--link", link)
    wait("ipmitool is answered again", far.answers)
    near.stop()
    _, took = wait("its socket is gone", lambda: not os.path.lexists(link), limit=10)
    if took > 1500:
        raise Failed(f"that takes {took:.0f} ms")

    def is_told():
        with open(holder.path, encoding="utf-8") as file:
            return "the device was unplugged" in file.read()

    wait("the holder is told why", is_told)
    near.start()
    wait("it is back by itself", far.answers)
    note(f"its node goes: the holder is told why, its socket is gone after {took:.0f} ms; it comes: ipmitool goes on")
    rack.two.cut(True)
    begin = time.monotonic()
    wait("its socket is gone", lambda: not os.path.lexists(link), limit=10)
    here = time.monotonic() - begin
    wait("it is nobody's lease", lambda: bmc(rack.three, near.node) == "", limit=10)
    there = time.monotonic() - begin
    rack.two.cut(False)
    within(f"silent loss: gone at its holder after {here:.1f} s, free after {there:.1f} s", (here, 5), (there, 5))
    wait("it is back by itself", far.answers)
    holder.stop()
    rack.three.reload("serve", rack.manager_config + '[[rule]]\nverdict = "allow"\nread_only = true\n')
    wait("who may only read may not have it", lambda: "which a BMC cannot be held to" in refused(rack.four, ok=(1, 75)))
    rack.three.reload("serve", rack.manager_config)
    driver(rack, far, link)
    far.stop()
    near.stop()
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    wait("the rack is whole", rack.whole)


def driver(rack, far, link):
    """The kernel's own node, whose driver takes nothing back."""

    def sim(*order):
        return json.loads(run("bmc-sim", "ctl", *order).stdout)

    def orders():
        return len([entry for entry in sim("log")["entries"] if entry.get("command") == "30/03"])

    def own():
        return run("ipmitool", "-I", "open", "-d", "0", "mc", "info", ok=None).returncode == 0

    offer(rack, "/dev/ipmi0")
    wait("it is known", lambda: bmc(rack.two, "/dev/ipmi0") == "")
    holder = rack.attached(rack.two, "path=/dev/ipmi0", "--link", link)
    wait("ipmitool is answered elsewhere", far.answers)
    before = orders()
    sim("service-time", "400")
    try:
        words = ["ipmitool", "-I", "open", "-d", "32", "raw", "0x30", "3"]
        asking = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(8)]
        wait("the first is carried out", lambda: orders() > before)
        holder.stop()
        wait("it is nobody's lease", lambda: bmc(rack.three, "/dev/ipmi0") == "", limit=8)
        then = orders() - before
        if not own():
            raise Failed("the machine's own is not answered")
        # The driver keeps the order: what it had before is done now.
        after = orders() - before
    finally:
        sim("service-time", "3")
    if then != after or after > 6:
        raise Failed(f"of eight orders {then} were carried out when it was free, and {after} later")
    note(f"of eight orders the {after} were carried out that the BMC had when the lease ended, and none of it later")
    for one in asking:
        one.wait(timeout=20)
    device = os.path.realpath("/sys/class/ipmi/ipmi0/device")
    unbound = os.path.realpath(f"{device}/driver")
    holder = rack.attached(rack.two, "path=/dev/ipmi0", "--link", link)
    wait("ipmitool is answered again", far.answers)
    write(f"{unbound}/unbind", os.path.basename(device))
    try:
        wait("the holder is told", holder.ended, limit=10)
        if "the device was unplugged" not in holder.said():
            raise Failed(f"the holder is told otherwise: {holder.said()}")
    finally:
        write(f"{unbound}/bind", os.path.basename(device))
    wait("it is known again", lambda: bmc(rack.two, "/dev/ipmi0") == "")
    wait("and answers", own)
    note("the kernel's driver is unbound while it is leased: the holder is told, and the kernel minds nothing")
