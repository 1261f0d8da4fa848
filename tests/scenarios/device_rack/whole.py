# SPDX-License-Identifier: MIT OR Apache-2.0
"""All of a device: found, leased, used, waited for and refused."""

import hashlib
import os
import struct
import subprocess
import time

from device_rack.rack import below, block, digest, Failed, Gadget, home, is_free, KEYBOARD, line, note, run, wait


def carry(rack):
    """A disk is found, leased, read and written elsewhere, and comes back."""
    log = os.path.join(rack.folder, "watch")
    with open(log, "w") as file:
        words = rack.two.words("find", "type=disk", "--watch", "--socket", rack.two.control)
        watching = subprocess.Popen(words, stdout=file)
    disk = rack.disk()
    wait("the finder is there", lambda: sum((rack.two.status() or {}).get("finders", [0])))
    if rack.own:
        wait("it is forwarded to the others", lambda: (rack.three.status() or {})["finders"][1] == 1)
        note("the finder is forwarded to managers whose lists are not held")
    disk.plug()
    wait("the kernel has it", lambda: home(disk.serial)[0])
    _, took = wait("a finder on another machine is told of it", lambda: "+ " in (line(log) or ""))
    note(f"a finder two machines away is told of a new disk {took:.0f} ms after sysfs has it")
    if not rack.own:
        wait("everybody knows it", lambda: all(m.state(disk.serial) == "" for m in rack.machines))
    begin = time.monotonic()
    holder = rack.attached(rack.two, "type=disk")
    node, _ = wait("it has a node", lambda: block(disk.serial))
    note(f"attached and a block device after {time.monotonic() - begin:.1f} s")
    with open(disk.image, "rb") as file:
        expected = hashlib.sha256(file.read()).hexdigest()
    if digest(node) != expected:
        raise Failed("what is read is not what is on the disk")
    fresh = os.urandom(1 << 20)
    with open(node, "r+b", buffering=0) as file:
        file.seek(1 << 20)
        file.write(fresh)
        os.fsync(file.fileno())
    note("what is read is what is on the disk, by checksum")
    if "TlsCurr" in (line("/proc/net/tls_stat") or ""):
        stat = run("ip", "netns", "exec", rack.one.space, "cat", "/proc/net/tls_stat").stdout
        used = dict(entry.split() for entry in stat.splitlines())
        if int(used["TlsCurrTxSw"]) < 1 or int(used["TlsDecryptError"]):
            raise Failed(f"it is not sealed: {stat}")
        note("it is sealed by the kernel's TLS")
    if not rack.own:
        wait("everybody knows who has it", lambda: all(m.state(disk.serial) == "blade2" for m in rack.machines))
    done = run(*rack.four.words("attach", "type=disk", "--root", rack.four.root, "--socket", rack.four.control, "--helper", rack.helper), ok=(75,))
    if "leased to uid 0 on blade2" not in done.stderr:
        raise Failed(f"another is not told who has it: {done.stderr}")
    note("another is refused, and told who has it")
    holder.stop()
    wait("it is the unit's again", lambda: is_free(disk.serial))
    wait("and nobody's lease", lambda: rack.three.state(disk.serial) == "")
    run("sync")
    with open(disk.image, "rb") as file:
        file.seek(1 << 20)
        if file.read(1 << 20) != fresh:
            raise Failed("what was written is not on the disk")
    note("what was written there is on the disk here; the disk is back")
    watching.kill()
    watching.wait()
    if "- " not in (line(log) or "") and "~ " not in (line(log) or ""):
        raise Failed("the finder was not told of changes")
    rack.take_away(disk)
    wait("it is gone everywhere", lambda: rack.three.state(disk.serial) is None)


def queue(rack):
    """Those who wait get it in the order in which they came."""
    disk = rack.disk()
    disk.plug()
    wait("it is known", lambda: all(m.state(disk.serial) == "" for m in rack.machines))
    first = rack.attached(rack.two, "type=disk")
    second = rack.four.attach("type=disk", "--queue")
    wait("the second waits", lambda: "place 1 in the queue" in second.said())
    third = rack.three.attach("type=disk", "--queue")
    wait("the third waits", lambda: "place 2 in the queue" in third.said())
    waiting = rack.three.ask("queue")
    if [one["holder"]["machine"] for one in waiting] != ["blade4", "blade3"]:
        raise Failed(f"the queue is {waiting}")
    begin = time.monotonic()
    first.stop()
    wait("the second has it", second.is_attached)
    note(f"given back by one, attached at the next after {time.monotonic() - begin:.1f} s")
    if third.is_attached():
        raise Failed("the third has it as well")
    second.stop()
    wait("the third has it", third.is_attached)
    lease = [f["lease"]["no"] for f in rack.three.device(disk.serial)["device"]["functions"] if f["lease"]][0]
    run(*rack.one.words("release", str(lease), "--socket", rack.one.control))
    wait("it ends", third.ended)
    if "taken away by uid 0 on blade1" not in third.said():
        raise Failed(f"it is not said who took it: {third.said()}")
    note("the operator of the machine with the device takes it away, and the holder is told")
    wait("it is the unit's again", lambda: is_free(disk.serial))
    rack.take_away(disk)


def policy(rack):
    """The manager that has the unit judges, and says why not."""
    rules = """
[[rule]]
devices = "type=disk"
machines = ["blade2"]
verdict = "deny"
reason = "disks are not for blade2"
[[rule]]
machines = ["blade4"]
verdict = "allow"
limit = "10s"
queue = false
"""
    rack.three.reload("serve", rack.manager_config + rules)
    disk = rack.disk()
    disk.plug()
    wait("it is known", lambda: all(m.state(disk.serial) == "" for m in rack.machines))

    def denied(machine):
        words = machine.words("attach", "type=disk", "--root", machine.root, "--socket", machine.control, "--helper", rack.helper)
        return run(*words, ok=(1,)).stderr

    wait("it is denied with the reason", lambda: "policy: disks are not for blade2 (rule 1)" in denied(rack.two))
    if "policy: no rule allows it" not in denied(rack.one):
        raise Failed("without a rule it is allowed")
    note("policy refuses, with the reason and the rule")
    holder = rack.attached(rack.four, "type=disk")
    # Of its ten seconds attaching takes some: on a slow processor the kernel was seen to need more than four for it.
    wait("its time ends", holder.ended, limit=15)
    if "its time is over" not in holder.said():
        raise Failed(f"it ended otherwise: {holder.said()}")
    wait("it is the unit's again", lambda: is_free(disk.serial))
    note("a limited lease ends by itself at the unit")
    rack.three.reload("serve", rack.manager_config)
    rack.take_away(disk)


def kinds(rack):
    """A serial adapter and a keyboard, by kind."""
    gadget = Gadget("dm-acm", "dummy_udc.1", "SER1", "Serial adapter")
    gadget.function("acm.0")
    rack.gadgets.append(gadget)
    gadget.plug()
    wait("it is known", lambda: rack.two.state("SER1") == "")
    keys = Gadget("dm-keys", "dummy_udc.2", "KEY1", "Keyboard")
    function = keys.function("hid.0", {"protocol": "1", "subclass": "1", "report_length": "8", "report_desc": KEYBOARD})
    rack.gadgets.append(keys)
    keys.plug()
    wait("it is known", lambda: rack.two.state("KEY1") == "")
    serial, keyboard = rack.two.attach("type=serial"), rack.four.attach("type=keyboard")
    wait("the serial adapter is attached", serial.is_attached)
    wait("the keyboard is attached", keyboard.is_attached)
    found, _ = wait("it has a terminal", lambda: below("SER1", "*/tty/tty*"))
    far, near = f"/dev/{os.path.basename(found)}", "/dev/ttyGS0"
    for path in (far, near):
        wait(f"{path} is there", lambda path=path: os.path.exists(path))
        run("stty", "-F", path, "raw", "-echo")
    with open(far, "r+b", buffering=0) as one, open(near, "r+b", buffering=0) as two:
        one.write(b"from afar\n")
        if two.read(10) != b"from afar\n":
            raise Failed("the adapter got something else")
        two.write(b"from here\n")
        if one.read(10) != b"from here\n":
            raise Failed("the holder got something else")
    note("a serial adapter is used elsewhere, in both directions")
    found, _ = wait("the keyboard is an input", lambda: below("KEY1", "*/*/input/input*/event*"))
    number = line(f"{function}/dev").split(":")
    hid = f"/dev/hidg{number[1]}"
    with open(f"/dev/input/{os.path.basename(found)}", "rb", buffering=0) as events:
        with open(hid, "wb", buffering=0) as file:
            file.write(bytes([0, 0, 4, 0, 0, 0, 0, 0]))
            file.write(bytes(8))
        for _ in range(8):
            _, _, kind, code, value = struct.unpack("llHHi", events.read(24))
            if (kind, code, value) == (1, 30, 1):
                break
        else:
            raise Failed("the key did not arrive")
    note("a key that is pressed on a keyboard here arrives elsewhere")
    keyboard.stop()
    serial.stop()
    wait("both are the unit's again", lambda: is_free("SER1") and is_free("KEY1"))
    for one in (gadget, keys):
        rack.take_away(one)
