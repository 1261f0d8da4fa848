# SPDX-License-Identifier: MIT OR Apache-2.0
"""Parts of a device by themselves: serial lines and disks."""

import errno
import glob
import hashlib
import json
import os
import signal
import subprocess
import time

from device_rack.rack import block, Failed, Gadget, home, is_free, note, real, run, USB, wait, within, write


def serial(rack):
    """A serial line by itself, not with all of its device; each excludes the other."""
    gadget = Gadget("dm-acm", "dummy_udc.1", "SER1", "Serial adapter")
    gadget.function("acm.0")
    rack.gadgets.append(gadget)
    gadget.plug()

    def parts():
        known = rack.two.device("SER1")
        return known and [f["kind"] for f in known["device"]["functions"]] == ["whole", "serial"]

    wait("its line is told as a part of it", parts)
    path = os.path.join(rack.folder, "line")
    part = rack.two.attach("serial=SER1", "--function", "serial", "--link", path)
    wait("it has a terminal", lambda: os.path.exists(path))
    run("stty", "-F", "/dev/ttyGS0", "raw", "-echo")
    with open(path, "r+b", buffering=0) as one, open("/dev/ttyGS0", "r+b", buffering=0) as two:
        one.write(b"from afar\n")
        if two.read(10) != b"from afar\n":
            raise Failed("the line got something else")
        two.write(b"from here\n")
        if one.read(10) != b"from here\n":
            raise Failed("the holder got something else")
    note("a serial line is used elsewhere by itself, in both directions")
    words = rack.four.words("attach", "serial=SER1", "--root", rack.four.root, "--socket", rack.four.control, "--helper", rack.helper)
    run(*words, ok=(75,))
    note("all of it is refused meanwhile")
    part.stop()
    whole = rack.attached(rack.four, "serial=SER1")
    words = rack.two.words("attach", "serial=SER1", "--function", "serial", "--root", rack.two.root, "--socket", rack.two.control)
    run(*words, ok=(1, 75))
    note("and its line meanwhile is")
    whole.stop()
    wait("it is the unit's again", lambda: is_free("SER1"))
    wait("with its line", parts)
    rack.take_away(gadget)


def parts_of(machine, serial):
    known = machine.device(serial)
    return [f["kind"] for f in known["device"]["functions"]] if known else None


def with_disk(rack, serial):
    wait("its disk is told as a part of it", lambda: all(parts_of(m, serial) == ["whole", "disk"] for m in (rack.two, rack.four)))


def sum_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def is_claimed(serial):
    """Whether somebody has the disk for himself, at the machine with the device."""
    found = glob.glob(f"{real(f'{USB}/{home(serial)[0]}')}/*/host*/target*/*/block/*")
    if not found:
        return False
    try:
        os.close(os.open(f"/dev/{os.path.basename(found[0])}", os.O_RDONLY | os.O_EXCL))
        return False
    except OSError as error:
        return error.errno == errno.EBUSY


def split(rack):
    """A disk by itself, by NBD; each excludes the other. What becomes of it when something goes wrong."""
    disk = rack.disk()
    disk.plug()
    with_disk(rack, disk.serial)
    whole = os.path.getsize(disk.image)
    path, copy = os.path.join(rack.folder, "split"), os.path.join(rack.folder, "copy")
    uri = f"nbd+unix:///?socket={path}"
    words = ["--root", rack.four.root, "--socket", rack.four.control, "--helper", rack.helper]
    begin = time.monotonic()
    holder = rack.attached(rack.two, "serial=DISK1", "--function", "disk", "--keep", "--link", path)
    note(f"a disk by itself is at a socket after {time.monotonic() - begin:.2f} s")
    place = real(path)
    if os.stat(place).st_mode & 0o777 != 0o600:
        raise Failed("others may connect")
    if place not in run(*rack.two.words("status", "--socket", rack.two.control)).stdout:
        raise Failed("status does not say where it is")
    size = json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]["export-size"]
    if size != whole:
        raise Failed(f"it has {size} bytes")
    run("nbdinfo", "--can", "multi-conn", uri)
    run("nbdcopy", "--connections=4", uri, copy)
    if sum_of(copy) != sum_of(disk.image):
        raise Failed("what is read is not what is on the disk")
    fresh = os.path.join(rack.folder, "fresh")
    write(fresh, os.urandom(whole))
    run("nbdcopy", "--connections=4", "--flush", fresh, uri)
    if sum_of(disk.image) != sum_of(fresh):
        raise Failed("what was written is not on the disk")
    note("nbdcopy reads and writes it with four connections: the same, by checksum")
    copies = [f"{copy}{number}" for number in range(4)]
    copying = [subprocess.Popen(["nbdcopy", uri, name]) for name in copies]
    if any(one.wait(timeout=60) for one in copying) or any(sum_of(name) != sum_of(fresh) for name in copies):
        raise Failed("four clients at once do not all get it")
    note("four clients at once get the same")
    done = run(*rack.four.words("attach", "serial=DISK1", *words), ok=(75,))
    if "leased to uid 0 on blade2" not in done.stderr:
        raise Failed(f"all of it is refused otherwise: {done.stderr}")
    if not is_claimed(disk.serial):
        raise Failed("it could be mounted where it is")
    note("all of it is refused meanwhile, and its own machine cannot mount it")

    def client():
        """One that never stops while it is let."""
        return subprocess.Popen(["sh", "-c", f"while nbdcopy '{uri}' null:; do :; done"], stderr=subprocess.DEVNULL)

    def gone():
        return not os.path.exists(place) and not os.path.lexists(path)

    reading = client()
    wait("it is read", lambda: is_claimed(disk.serial))
    disk.pull()
    # usb-storage may reset the port of a read that fails before it lets the disk go (see `unplug`): that is the kernel's time, not ours.
    _, kernel = wait("the kernel knows", lambda: home(disk.serial)[0] is None, limit=10)
    _, told = wait("its socket is gone", gone, limit=10)
    _, more = wait("and its client", lambda: reading.poll() is not None, limit=10)
    within(f"unplugged in use: the kernel knows after {kernel:.0f} ms, the holder's socket is gone {told:.0f} ms later, its client {more:.0f} later", (kernel, 3000), (told, 1000), (more, 1000))
    wait("the holder is told why", lambda: "the device was unplugged" in holder.said(), limit=2)
    disk.udc = "dummy_udc.1"
    disk.plug()
    wait("it is there again", lambda: os.path.exists(path), limit=40)
    if real(path) != place:
        raise Failed("it is at another place")
    run("nbdcopy", uri, copy)
    note("plugged into another port, it is at the same place again")

    rack.one.kill("unit")
    wait("its socket is gone", gone, limit=10)
    rack.one.start("unit", rack.unit_config)
    begin = time.monotonic()
    wait("it is there again", lambda: os.path.exists(path), limit=40)
    note(f"the unit is killed and started again: the disk is back after {time.monotonic() - begin:.1f} s")

    reading = client()
    wait("it is read", lambda: is_claimed(disk.serial))
    rack.two.cut(True)
    begin = time.monotonic()
    wait("the holder's socket is gone", gone, limit=10)
    here = time.monotonic() - begin
    wait("and its client", lambda: reading.poll() is not None, limit=10)
    wait("the disk is let go", lambda: not is_claimed(disk.serial), limit=10)
    wait("it is nobody's lease", lambda: rack.three.state(disk.serial) == "", limit=10)
    there = time.monotonic() - begin
    within(f"silent loss: socket and client are gone after {here:.1f} s, the unit's disk is free after {there:.1f} s", (here, 5), (there, 5))
    rack.two.cut(False)
    wait("it is there again by itself", lambda: os.path.exists(path), limit=40)
    holder.stop()
    wait("all is as before", lambda: gone() and rack.three.state(disk.serial) == "" and not is_claimed(disk.serial))

    other = rack.attached(rack.four, "serial=DISK1")
    done = run(*rack.two.words("attach", "serial=DISK1", "--function", "disk", "--root", rack.two.root, "--socket", rack.two.control), ok=(75,))
    if "leased to uid 0 on blade4" not in done.stderr:
        raise Failed(f"its disk is refused otherwise: {done.stderr}")
    waiting = rack.two.attach("serial=DISK1", "--function", "disk", "--queue", "--link", path)
    wait("who wants it waits", lambda: "place 1 in the queue" in waiting.said())
    other.stop()
    wait("who waits has it", waiting.is_attached)
    run("nbdcopy", uri, copy)
    note("its disk is refused while all of it is leased; who waits for that has it when all of it is given back")
    waiting.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial) and not is_claimed(disk.serial))
    rack.take_away(disk)
    kept(rack, words)


def kept(rack, words):
    """Disks that are in use, or may only be read."""
    disk = rack.disk("DISK2")
    run("mkfs.ext4", "-q", "-F", disk.image)
    disk.plug()
    with_disk(rack, disk.serial)
    bus_id, _ = home(disk.serial)
    node = os.path.basename(glob.glob(f"{real(f'{USB}/{bus_id}')}/*/host*/target*/*/block/*")[0])
    where = os.path.join(rack.folder, "mounted")
    os.makedirs(where)
    wait("it is mounted", lambda: run("mount", f"/dev/{node}", where, ok=None).returncode == 0)
    split_off = rack.four.words("attach", "serial=DISK2", "--function", "disk", *words)
    # Whether the unit has seen it already or not: then the helper has.
    done = run(*split_off, ok=(1, 75))
    if "in use at its unit" not in done.stderr:
        raise Failed(f"it is refused otherwise: {done.stderr}")
    note(f"a disk that is mounted is refused: {done.stderr.strip()}")
    run("umount", where)
    rack.take_away(disk)
    disk = rack.disk("DISK3", ro="1")
    disk.plug()
    with_disk(rack, disk.serial)
    path = os.path.join(rack.folder, "protected")
    holder = rack.attached(rack.four, "serial=DISK3", "--function", "disk", "--link", path)
    uri = f"nbd+unix:///?socket={path}"
    run("nbdinfo", "--is", "read-only", uri)
    holder.stop()
    rack.three.reload("serve", rack.manager_config + '[[rule]]\nverdict = "allow"\nread_only = true\n')
    rack.take_away(disk)
    disk = rack.disk("DISK4")
    disk.plug()
    with_disk(rack, disk.serial)
    wait("all of it is refused", lambda: "may only be read" in run(*rack.four.words("attach", "serial=DISK4", *words), ok=(1,)).stderr)
    holder = rack.attached(rack.four, "serial=DISK4", "--function", "disk", "--link", path)
    run("nbdinfo", "--is", "read-only", uri)
    before = sum_of(disk.image)
    if run("nbdcopy", os.path.join(rack.folder, "DISK2.img"), uri, ok=None).returncode == 0 or sum_of(disk.image) != before:
        raise Failed("it is written")
    note("what is protected, or leased by such a rule, can only be read")
    holder.stop()
    rack.three.reload("serve", rack.manager_config)
    rack.take_away(disk)


def setup(rack):
    """A device whose parts are given away when somebody has set it up."""
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config.replace("[unit]", "[unit]\nttl = '5s'\nsetup = ['type=disk']"))
    wait("the rack is whole", rack.whole)
    disk = rack.disk()
    disk.plug()
    with_disk(rack, disk.serial)
    ends = ["--root", rack.four.root, "--socket", rack.four.control, "--helper", rack.helper]
    part = rack.four.words("attach", "serial=DISK1", "--function", "disk", *ends)

    def refused():
        return "is to be set up first" in run(*part, ok=(75,)).stderr

    def generation():
        known = rack.four.device(disk.serial)
        return known["device"]["gen_no"] if known else 0

    if not refused():
        raise Failed("its disk is refused for another reason")
    note("its disk by itself is refused, and it is said what to do")
    holder = rack.attached(rack.two, "serial=DISK1")
    wait("it has a node", lambda: block(disk.serial))
    holder.stop(signal.SIGKILL)
    wait("what nobody renews ends", lambda: is_free(disk.serial) and rack.four.state(disk.serial) == "", limit=20)
    with_disk(rack, disk.serial)
    if not refused():
        raise Failed("its disk is refused for another reason")
    note("who dies over it has not set it up")
    holder = rack.attached(rack.two, "serial=DISK1")
    node, _ = wait("it has a node", lambda: block(disk.serial))
    run("mkfs.ext4", "-q", "-F", "-L", "set-up", node)
    holder.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial))
    with_disk(rack, disk.serial)
    path = os.path.join(rack.folder, "split")
    holder = rack.attached(rack.four, "serial=DISK1", "--function", "disk", "--link", path)
    copy = os.path.join(rack.folder, "copy")
    run("nbdcopy", f"nbd+unix:///?socket={path}", copy)
    if run("blkid", "-o", "value", "-s", "LABEL", copy).stdout.strip() != "set-up":
        raise Failed("what is given away was not set up")
    note("all of it is attached, gets a file system, and is given back: from then on its disk is for lease")
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config.replace("[unit]", "[unit]\nttl = '5s'\nsetup = ['type=disk']"))
    wait("it ends with its unit", holder.ended)
    with_disk(rack, disk.serial)
    holder = rack.attached(rack.four, "serial=DISK1", "--function", "disk", "--link", path)
    holder.stop()
    note("the unit's program is started again: it is set up still")
    before = generation()
    unit, port = rack.one.processes["unit"], home(disk.serial)
    unit.send_signal(signal.SIGSTOP)
    disk.pull()
    wait("the kernel knows", lambda: home(disk.serial)[0] is None, limit=10)
    disk.plug()
    wait("and that it is there again", lambda: home(disk.serial) == port, limit=10)
    unit.send_signal(signal.SIGCONT)
    wait("so does the unit", lambda: generation() > before)
    with_disk(rack, disk.serial)
    if not refused():
        raise Failed("its disk is refused for another reason")
    note("plugged in again, even into the same port while its unit did not look, it is to be set up again")
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    rack.take_away(disk)
    wait("the rack is whole", rack.whole)
