#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A disk of one machine on another by `device-manager attach`, in clear beside the kernel's `usbip` tool, and sealed, by the kernel and by
us, beside the tool through stunnel: two controllers of dummy_hcd in one guest, machines in namespaces. And how soon a finder is told, and
how many leases are granted in a second."""

import glob
import os
import subprocess
import sys
import time
import types

sys.path.insert(0, "/mnt/tests/bench/lib")
from devices import grant, load_rack, release
from rows import CannotMeasure, Row, interleaved, measure, medians, output

FULL = "--full" in sys.argv[1:]
ROUNDS = 7 if FULL else 3
BULK, SMALL = 24 << 20 if FULL else 8 << 20, 200 if FULL else 60  # bytes; requests of 4 KiB

rack_module = load_rack()
wait, block, run = rack_module.wait, rack_module.block, rack_module.run


def read(node, size, count):
    """Seconds for so many reads past the page cache."""
    subprocess.run(["dd", f"if={node}", "of=/dev/null", "bs=64K", "count=1", "iflag=direct"], capture_output=True, check=True)
    begin = time.monotonic()
    done = subprocess.run(["dd", f"if={node}", "of=/dev/null", f"bs={size}", f"count={count}", "iflag=direct"], capture_output=True, text=True)
    if done.returncode:
        raise CannotMeasure(f"{node}: {done.stderr}")
    return time.monotonic() - begin


class Tool:
    """A disk that `usbip` attaches: in clear, or through stunnel with the cipher that ours has."""

    PORT, FRONT = 3240, 3241  # usbipd's, and stunnel's of the machine that has the disk

    def __init__(self, rack, serial):
        self.rack, self.serial, self.tunnels = rack, serial, []
        self.bus_id, _ = rack_module.home(serial)
        run("ip", "netns", "exec", rack.one.space, "usbipd", "-D")
        run("usbip", "bind", "-b", self.bus_id)
        self.attach(rack.one.address, self.PORT)

    def attach(self, host, port):
        # Ours lets drivers have nothing that it does not know.
        for bus in glob.glob("/sys/devices/platform/vhci_hcd.0/usb*/authorized_default"):
            rack_module.write(bus, "1")
        words = ("ip", "netns", "exec", self.rack.two.space, "usbip", "--tcp-port", str(port), "attach", "-r", host, "-b", self.bus_id)
        wait("the tool attaches it", lambda: run(*words, ok=None).returncode == 0)
        self.node = wait("the tool's disk", lambda: block(self.serial))[0]

    def seal(self):
        """Once more, through stunnel."""
        run("usbip", "detach", "-p", self.port())
        wait("it is nobody's", lambda: rack_module.imported(self.serial) is None)
        secrets = os.path.join(self.rack.folder, "stunnel.psk")
        rack_module.write(secrets, "lab:" + "5a" * 32)
        os.chmod(secrets, 0o600)
        address = self.rack.one.address
        self.tunnel(self.rack.one, "far", f"accept = {address}:{self.FRONT}\nconnect = {address}:{self.PORT}")
        self.tunnel(self.rack.two, "near", f"client = yes\naccept = 127.0.0.1:{self.FRONT}\nconnect = {address}:{self.FRONT}\nPSKidentity = lab")
        self.attach("127.0.0.1", self.FRONT)

    def tunnel(self, machine, name, ends):
        path = os.path.join(self.rack.folder, f"stunnel-{name}")
        words = f"foreground = yes\npid =\nsyslog = no\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[usbip]\n{ends}\n"
        words += f"PSKsecrets = {self.rack.folder}/stunnel.psk\nsslVersion = TLSv1.3\nciphersuites = TLS_CHACHA20_POLY1305_SHA256\n"
        rack_module.write(path, words)
        with open(f"{path}.log", "w") as log:
            argv = ["ip", "netns", "exec", machine.space, "stunnel", path]
            self.tunnels.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def port(self):
        """Its port of the virtual controller, as the tool has it."""
        for line in run("usbip", "port").stdout.splitlines():
            if line.startswith("Port "):
                found = line.split()[1].rstrip(":")
            # `1-1 -> usbip://…/1-1` names it as it is called at home.
            if line.strip().endswith(f"/{self.bus_id}"):
                return found
        raise CannotMeasure("usbip does not know what it attached")

    def close(self):
        for tunnel in self.tunnels:
            tunnel.kill()


def rates(ours, peer):
    def bulk(node):
        return lambda: BULK / read(node, "1M", BULK >> 20) / 1e6

    def small(node):
        return lambda: read(node, "4K", SMALL) / SMALL * 1000

    return medians(interleaved(ROUNDS, bulk(ours), bulk(peer))), medians(interleaved(ROUNDS, small(ours), small(peer)))


def beside(rack, disk, tool, how, peer, config="", **bars):
    """Reads of one disk by ours, as the unit is configured, and of the other by the tool, by turns."""
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config + config)
    wait("the rack is whole", rack.whole)
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    holder = rack.two.attach("serial=DISK1")
    wait("it is attached", holder.is_attached)
    node, _ = wait("it has a node", lambda: block(disk.serial))
    (rate, peer_rate), (latency, peer_latency) = rates(node, tool.node)
    holder.stop()
    wait("it is the unit's again", lambda: rack_module.is_free(disk.serial))
    command, note = "tests/scenarios/device-rack carry", "2 machines in namespaces of one emulated processor"
    least, most = bars.get("rate"), bars.get("latency")
    return [
        Row(f"1 MiB reads {how} beside {peer}", "MB/s", rate, command, peer=peer_rate, at_least=least, note=note),
        Row(f"4 KiB reads {how} beside {peer}", "ms", latency, command, peer=peer_latency, at_most=most, note=note),
    ]


def carried(rack):
    """Reads of a disk on another machine, ours and by the tool."""
    disk, other = rack.disk("DISK1", size=32 << 20), rack.disk("DISK2", size=32 << 20, udc="dummy_udc.1")
    for one in (disk, other):
        one.plug()
        wait("it is known", lambda one=one: rack.two.state(one.serial) == "")
    tool = Tool(rack, other.serial)
    try:
        rows = beside(rack, disk, tool, "in clear", "usbip", "insecure = true\n", rate=1.0, latency=0.8)
        tool.seal()
        rows += beside(rack, disk, tool, "sealed by the kernel", "usbip and stunnel", rate=1.0)
        # As on a machine whose kernel has no TLS.
        run("modprobe", "-r", "tls")
        os.makedirs("/run/modprobe.d", exist_ok=True)
        rack_module.write("/run/modprobe.d/midplane-lab.conf", "install tls /bin/false\n")
        rows += beside(rack, disk, tool, "sealed by us", "usbip and stunnel", rate=1.0)
    finally:
        tool.close()
    rack.take_away(disk)
    return rows


def told(rack):
    """A disk is plugged in on one machine: until a finder on another is told."""
    log = os.path.join(rack.folder, "watch")
    with open(log, "w") as file:
        watching = subprocess.Popen(rack.two.words("find", "serial=DISK3", "--watch", "--socket", rack.two.control), stdout=file)
    disk = rack.disk("DISK3", size=1 << 20, udc="dummy_udc.2")
    took = []
    for turn in range(ROUNDS):
        disk.plug()
        wait("the kernel has it", lambda: rack_module.home(disk.serial)[0])
        took.append(wait("the finder is told", lambda turn=turn: open(log).read().count("+ ") == turn + 1)[1])
        disk.pull()
        wait("and that it is gone", lambda turn=turn: open(log).read().count("- ") == turn + 1)
    watching.kill()
    rack.take_away(disk)
    command = "device-manager find --watch"
    return [Row("a finder is told of a new device", "ms", sorted(took)[len(took) // 2], command, at_most=100, note="from when sysfs has it")]


def granted(rack):
    """Leases that are granted and given back, one after another, over three machines."""
    disk = rack.disk("DISK4", size=1 << 20, udc="dummy_udc.2")
    disk.plug()
    wait("it is known", lambda: rack.four.state(disk.serial) == "")
    device = rack.four.device(disk.serial)["device"]["id"]
    count, begin = 30 if FULL else 10, time.monotonic()
    for _ in range(count):
        lease = grant(rack.four.control, device)
        if lease is None:
            raise CannotMeasure("a lease was not granted")
        wait("it is known here", lambda lease=lease: release(rack.four.control, lease))
    rate = count / (time.monotonic() - begin)
    rack.take_away(disk)
    return [Row("leases granted and given back, over three machines", "1/s", rate, "device-manager lease", note="one after another, in the queue for the one before")]


def main():
    for module in ("bridge", "veth", "libcomposite", "usb_f_mass_storage", "usb_storage", "usbip-host", "vhci-hcd", "tls"):
        output("modprobe", module, pinned=False)
    subprocess.run(["modprobe", "-r", "dummy_hcd"], check=False)
    output("modprobe", "dummy_hcd", "num=3", "is_high_speed=1", pinned=False)
    rack = rack_module.Rack(types.SimpleNamespace(own=False))
    try:
        wait("the rack is whole", rack.whole)

        def part(what):
            def rows():
                try:
                    return what(rack)
                except (rack_module.Failed, OSError) as error:
                    raise CannotMeasure(str(error)) from error

            rows.__doc__ = what.__doc__
            return rows

        measure(part(told), part(granted), part(carried))
    finally:
        rack.close()


if __name__ == "__main__":
    main()
