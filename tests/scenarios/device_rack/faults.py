# SPDX-License-Identifier: MIT OR Apache-2.0
"""All of a device, when something goes wrong with managers, units, networks or plugs, or without the kernel's TLS."""

import hashlib
import os
import signal
import socket
import subprocess
import time

from device_rack.rack import block, digest, Failed, imported, is_free, line, note, run, wait, within, write


def managers(rack):
    """Managers die while data flow."""
    disk = rack.disk(size=12 << 20)
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    holder = rack.attached(rack.two, "type=disk")
    node, _ = wait("it has a node", lambda: block(disk.serial))
    with open(disk.image, "rb") as file:
        expected = hashlib.sha256(file.read()).hexdigest()
    other = rack.disk("DISK2", size=4 << 20, udc="dummy_udc.1")
    other.plug()
    wait("another is known", lambda: rack.four.state(other.serial) == "")
    watched = os.path.join(rack.folder, "watched")
    with open(watched, "w") as file:
        words = rack.two.words("find", "serial=DISK1", "--watch", "--socket", rack.two.control)
        watching = subprocess.Popen(words, stdout=file, stderr=file)
    wait("a finder is told", lambda: (line(watched) or "").count("+ ") == 1)
    reading = subprocess.Popen(["dd", f"if={node}", f"of={rack.folder}/copy", "bs=64K", "iflag=direct", "status=none"])
    rack.three.kill("serve")
    begin = time.monotonic()
    rack.two.kill("serve")
    second = rack.attached(rack.four, "serial=DISK2", "--keep")
    took = time.monotonic() - begin
    units = rack.four.ask("units")
    if [unit["manager"] for unit in units] != ["blade4"]:
        raise Failed(f"the unit has another manager than expected: {units}")
    note(f"the managers of unit and service are killed: the unit changes over, and another disk is attached after {took:.1f} s")
    if reading.poll() is not None:
        note("(the first disk was read already)")
    if reading.wait(timeout=120) != 0:
        raise Failed("the stream broke")
    if digest(f"{rack.folder}/copy") != expected:
        raise Failed("the stream was disturbed")
    if holder.ended():
        raise Failed(f"the holder ended: {holder.said()}")
    note("the stream was not disturbed")
    for machine in (rack.two, rack.three):
        machine.start("serve", rack.manager_config)
    wait("the finder works on the new managers", lambda: rack.two.state(disk.serial) == "blade2" and rack.three.state(disk.serial) == "blade2")
    wait("and the one that was there before", lambda: (line(watched) or "").count("+ ") == 2)
    watching.kill()
    watching.wait()
    note("a finder is told again by the manager that is started anew")
    second.stop()
    holder.stop()
    wait("both are the unit's again", lambda: is_free(disk.serial) and is_free(other.serial))
    rack.take_away(other)
    rack.take_away(disk)
    # The unit goes back to the manager it prefers.
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    wait("the rack is whole", rack.whole)


def silence(rack):
    """The network is lost without a word, and comes back."""
    disk = rack.disk(size=12 << 20)
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    holder = rack.attached(rack.two, "--keep", "serial=DISK1")
    node, _ = wait("it has a node", lambda: block(disk.serial))
    reading = subprocess.Popen(["dd", f"if={node}", "of=/dev/null", "bs=64K", "iflag=direct"], stderr=subprocess.DEVNULL)
    rack.two.cut(True)
    begin = time.monotonic()
    wait("the holder's end is free", lambda: imported(disk.serial) is None, limit=10)
    here = time.monotonic() - begin
    wait("the unit's end is free", lambda: is_free(disk.serial), limit=10)
    there = time.monotonic() - begin
    wait("nobody is stuck", lambda: reading.poll() is not None, limit=10)
    within(f"silent loss: free at the holder after {here:.1f} s, at the unit after {there:.1f} s, the reader after {time.monotonic() - begin:.1f} s", (here, 5), (there, 5))
    wait("it is nobody's lease", lambda: rack.three.state(disk.serial) == "", limit=10)
    second = rack.attached(rack.four, "type=disk")
    second.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial))
    rack.two.cut(False)
    begin = time.monotonic()
    wait("it is attached again by itself", lambda: block(disk.serial), limit=40)
    note(f"the network is back: attached again after {time.monotonic() - begin:.1f} s")
    holder.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial))
    rack.take_away(disk)


def unplug(rack):
    """Pulled out in use; plugged in elsewhere; swapped for another."""
    disk = rack.disk()
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    holder = rack.two.attach("--keep", "serial=DISK1")
    node, _ = wait("it is attached", lambda: block(disk.serial))
    # Until it is read, the kernel is still busy finding out what it is, and lets nothing go.
    read = ["dd", f"if={node}", "of=/dev/null", "bs=512", "iflag=direct"]
    wait("it can be read", lambda: subprocess.run([*read, "count=1"], stderr=subprocess.DEVNULL, check=False).returncode == 0)
    reading = subprocess.Popen(read, stderr=subprocess.DEVNULL)
    disk.pull()

    def is_told():
        with open(holder.path, encoding="utf-8") as file:
            return "the device was unplugged" in file.read()

    _, told = wait("the holder is told why", is_told)
    _, more = wait("its kernel lets it go", lambda: imported(disk.serial) is None)
    wait("nobody is stuck", lambda: reading.poll() is not None, limit=10)
    # Where a read fails before the port is empty, usb-storage resets that port first: the kernel was seen to take 1.2 s for that.
    within(f"unplugged in use: the holder is told why after {told:.0f} ms, and its kernel lets it go {more:.0f} ms later", (told, 1000), (more, 3000))
    if reading.returncode == 0:
        raise Failed("it was not in use any more")
    wait("it is known to be gone", lambda: rack.two.state(disk.serial) is None)
    # Another port, and another device in the old one.
    swapped = rack.disk("DISK9", udc=disk.udc)
    disk.udc = "dummy_udc.1"
    swapped.plug()
    disk.plug()
    begin = time.monotonic()
    wait("it is attached again", lambda: block(disk.serial))
    note(f"plugged into another port: attached again after {time.monotonic() - begin:.1f} s, by what it is")
    if not is_free(swapped.serial):
        raise Failed("the one in its old port was given away")
    note("what was plugged into its old port was left alone")
    holder.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial))
    rack.take_away(disk)
    rack.take_away(swapped)


def units(rack):
    """The unit is killed while data flow; a holder is killed."""
    disk = rack.disk(size=12 << 20)
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    holder = rack.attached(rack.two, "type=disk")
    node, _ = wait("it has a node", lambda: block(disk.serial))
    reading = subprocess.Popen(["dd", f"if={node}", "of=/dev/null", "bs=64K", "iflag=direct"], stderr=subprocess.DEVNULL)
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config.replace("[unit]", "[unit]\nttl = '6s'"))
    wait("its lease is told again", lambda: rack.three.state(disk.serial) == "blade2")
    if reading.wait(timeout=120) != 0:
        raise Failed("the stream broke")
    # It is renewed with the new one.
    time.sleep(8)
    if holder.ended() or rack.three.state(disk.serial) != "blade2":
        raise Failed("the lease did not outlive the unit's program")
    note("the unit is killed and started again: the stream was not disturbed, and the lease goes on")
    holder.stop(signal.SIGKILL)
    begin = time.monotonic()
    wait("what nobody renews ends", lambda: is_free(disk.serial), limit=12)
    wait("at the machine of the holder as well", lambda: imported(disk.serial) is None)
    note(f"the holder is killed: its lease expired at the unit after {time.monotonic() - begin:.1f} s")
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    rack.take_away(disk)
    wait("the rack is whole", rack.whole)


class Listener:
    """Whoever listens on the network at a machine, for a text."""

    def __init__(self, machine, text):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((machine.space, 0))
        self.socket.setblocking(False)
        self.text, self.bytes, self.heard = text, 0, 0

    def listen(self):
        """What came since."""
        while True:
            try:
                packet = self.socket.recv(1 << 17)
            except BlockingIOError:
                return
            self.bytes += len(packet)
            self.heard += self.text in packet


def frames(rack):
    """A disk of a machine on one whose kernel has no TLS, and both without."""
    text = b"nobody else is to read this line"
    disk = rack.disk(size=4 << 20)
    write(disk.image, text * (disk_size(disk) // len(text)))
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    with open(disk.image, "rb") as file:
        expected = hashlib.sha256(file.read()).hexdigest()

    def carried():
        """It is read and written elsewhere; how much went over the network meanwhile, and how often that text was heard."""
        holder = rack.attached(rack.two, "type=disk", "--keep")
        node, _ = wait("it has a node", lambda: block(disk.serial))
        listener = Listener(rack.two, text)
        begin = time.monotonic()
        if digest(node) != expected:
            raise Failed("what is read is not what is on the disk")
        rate = disk_size(disk) / (time.monotonic() - begin) / 1e6
        listener.listen()
        with open(node, "r+b", buffering=0) as file:
            file.write(text[::-1] * 32)
            os.fsync(file.fileno())
        return holder, listener, f"{rate:.1f} MB/s"

    run("modprobe", "-r", "tls")
    os.makedirs("/run/modprobe.d", exist_ok=True)
    write("/run/modprobe.d/midplane-lab.conf", "install tls /bin/false\n")
    try:
        holder, listener, rate = carried()
        if "this process carries the data" not in holder.said() or os.path.exists("/proc/net/tls_stat"):
            raise Failed(f"the kernel carries it: {holder.said()}")
        if listener.heard or listener.bytes < disk_size(disk):
            raise Failed(f"of {listener.bytes} bytes that went over the network, {listener.heard} packets had what is on the disk")
        note(f"no kernel has TLS: it is read and written all the same, with {rate}, and what is heard between the machines makes no sense")
        rack.two.cut(True)
        begin = time.monotonic()
        wait("the holder's end is free", lambda: imported(disk.serial) is None, limit=10)
        wait("the unit's end is free", lambda: is_free(disk.serial), limit=10)
        there = time.monotonic() - begin
        rack.two.cut(False)
        within(f"silent loss: free at both ends after {there:.1f} s", (there, 5))
        wait("it is attached again by itself", lambda: block(disk.serial), limit=40)
        rack.one.kill("unit")
        wait("the holder's end is free", lambda: imported(disk.serial) is None, limit=10)
        rack.one.start("unit", rack.unit_config)
        wait("it is attached again by itself", lambda: block(disk.serial), limit=40)
        note("the unit is killed: the device is back when the unit is")
        holder.stop(signal.SIGKILL)
        wait("its end is free", lambda: imported(disk.serial) is None, limit=10)
        wait("the unit's end is free", lambda: is_free(disk.serial), limit=10)
        note("the holder is killed: both ends are free at once")
        # As it is configured in clear, the same ear hears it.
        rack.one.kill("unit")
        rack.one.start("unit", rack.unit_config + "insecure = true\n")
        wait("it is nobody's", lambda: rack.two.state(disk.serial) == "")
        write(disk.image, text * (disk_size(disk) // len(text)))
        holder, listener, rate = carried()
        if not listener.heard:
            raise Failed("in clear nothing is heard either: this trial shows nothing")
        note(f"in clear it goes with {rate}, and whoever listens reads it")
        holder.stop()
        wait("it is the unit's again", lambda: is_free(disk.serial))
    finally:
        os.unlink("/run/modprobe.d/midplane-lab.conf")
        run("modprobe", "tls")
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    rack.take_away(disk)
    wait("the rack is whole", rack.whole)


def disk_size(disk):
    return os.path.getsize(disk.image)
