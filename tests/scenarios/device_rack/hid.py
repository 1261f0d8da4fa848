# SPDX-License-Identifier: MIT OR Apache-2.0
"""Keyboards and mice."""

import errno
import fcntl
import glob
import os
import re
import socket
import time

try:
    import evdev
    from evdev import ecodes
except ImportError:  # where it is measured without keyboards
    evdev = ecodes = None

from device_rack.parts import parts_of, sum_of
from device_rack.rack import Failed, Gadget, home, is_free, KEYBOARD, line, note, real, run, USB, wait, within, write


class Keys:
    """What an input device tells of keys."""

    def __init__(self, path):
        self.device = evdev.InputDevice(path)

    def told(self):
        try:
            return [(event.code, event.value) for event in self.device.read() if event.type == ecodes.EV_KEY]
        except BlockingIOError:
            return []

    def close(self):
        self.device.close()


def is_grabbed(path):
    """Whether somebody has an input device for himself."""
    device = evdev.InputDevice(path)
    try:
        device.grab()
        return False
    except OSError as error:
        return error.errno == errno.EBUSY
    finally:
        device.close()


def hid(rack):
    """A keyboard by itself, while another has the disk of the same device. What is typed reaches its holder alone."""
    image = os.path.join(rack.folder, "KEYS1.img")
    write(image, os.urandom(4 << 20))
    gadget = Gadget("dm-hid", "dummy_udc.0", "KEYS1", "Keyboard")
    function = gadget.function("hid.0", {"protocol": "1", "subclass": "1", "report_length": "8", "report_desc": KEYBOARD})
    gadget.function("mass_storage.0", {"lun.0/removable": "1", "lun.0/file": image})
    rack.gadgets.append(gadget)
    gadget.plug()
    wait("its parts are told", lambda: all(parts_of(m, "KEYS1") == ["whole", "hid", "disk"] for m in (rack.two, rack.four)))
    hidg = os.open(f"/dev/hidg{line(f'{function}/dev').split(':')[1]}", os.O_RDWR | os.O_NONBLOCK)

    def home_node():
        found = glob.glob(f"{real(USB + '/' + str(home('KEYS1')[0]))}/*/*/input/input*/event*")
        return f"/dev/input/{os.path.basename(found[0])}" if found else None

    def press():
        for report in (bytes([0, 0, 4, 0, 0, 0, 0, 0]), bytes(8)):
            wait("the host takes a report", lambda report=report: sent(report))

    def sent(report):
        try:
            return os.write(hidg, report) == 8
        except BlockingIOError:
            return False

    def lights():
        try:
            return os.read(hidg, 8)
        except BlockingIOError:
            return b""

    def arrives(keys):
        told = []

        def both():
            told.extend(keys.told())
            return told == [(ecodes.KEY_A, 1), (ecodes.KEY_A, 0)]

        press()
        wait("the key arrives", both, limit=10)

    path, _ = wait("it is an input here", home_node)
    own = Keys(path)
    arrives(own)
    begin = time.monotonic()
    named = os.path.join(rack.folder, "keys")
    holder = rack.attached(rack.two, "serial=KEYS1", "--function", "hid", "--keep", "--link", named)
    note(f"a keyboard by itself is an input after {time.monotonic() - begin:.2f} s")

    def nodes(times):
        """Where it is, the time that it is there."""
        with open(holder.path, encoding="utf-8") as file:
            said = re.findall(r" is at (/dev/input/event\d+), (/dev/hidraw\d+), lease", file.read())
        return said[times - 1] if len(said) == times and all(map(os.path.exists, said[-1])) else None

    event, raw = nodes(1)
    if real(named) != event:
        raise Failed(f"its other name leads to {real(named)}")
    far = Keys(event)
    if (far.device.info.vendor, far.device.info.product, far.device.uniq) != (0x1D6B, 0x0104, "KEYS1") or "Keyboard" not in far.device.name:
        raise Failed(f"it is another: {far.device}")
    arrives(far)
    if own.told():
        raise Failed("what is typed reaches the machine with the keyboard as well")
    note("a key that is pressed reaches its holder, and not the machine with the keyboard")
    far.device.set_led(ecodes.LED_CAPSL, 1)
    wait("its light is on", lambda: lights() == bytes([2]), limit=10)
    with open(raw, "r+b", buffering=0) as file:
        file.write(bytes([0, 4]))
        wait("another light is on", lambda: lights() == bytes([4]), limit=10)
        # HIDIOCGINPUT(9): the gadget answers; HIDIOCSFEATURE(2): it has no such report, and says so.
        report = bytearray(9)
        if fcntl.ioctl(file, 0xC009480A, report) != 9:
            raise Failed("a report that is asked for is another")
        begin = time.monotonic()
        try:
            fcntl.ioctl(file, 0xC0024806, bytearray(2))
            raise Failed("what the device refuses is told as done")
        except OSError:
            pass
        if time.monotonic() - begin > 4:
            raise Failed("what the device refuses is told by nobody")
    note("lights go on by the input and by hidraw; reports are asked for, and what the device refuses is refused")
    words = ["--root", rack.four.root, "--socket", rack.four.control, "--helper", rack.helper]
    for part in (["--function", "hid"], []):
        done = run(*rack.four.words("attach", "serial=KEYS1", *part, *words), ok=(75,))
        if "leased to uid 0 on blade2" not in done.stderr:
            raise Failed(f"it is refused otherwise: {done.stderr}")
    link = os.path.join(rack.folder, "beside")
    disk = rack.attached(rack.four, "serial=KEYS1", "--function", "disk", "--link", link)
    copy = os.path.join(rack.folder, "beside.img")
    run("nbdcopy", f"nbd+unix:///?socket={link}", copy)
    if sum_of(copy) != sum_of(image):
        raise Failed("what is read is not what is on the disk")
    arrives(far)
    disk.stop()
    note("it and all of the device are refused to another meanwhile, who has the disk of the same device")

    def gone():
        return not os.path.exists(event)

    far.close()
    own.close()
    # Until its own machine has it no more it is the kernel's time (see `unplug`): the disk of the same device may be read.
    gadget.pull()
    _, kernel = wait("the kernel knows", lambda: not os.path.exists(path), limit=10)
    _, took = wait("it is gone", gone, limit=10)
    within(f"unplugged: the kernel knows after {kernel:.0f} ms, gone at its holder {took:.0f} ms later", (kernel, 3000), (took, 1000))
    wait("the holder is told why", lambda: "the device was unplugged" in holder.said(), limit=2)
    gadget.udc = "dummy_udc.1"
    gadget.plug()
    event, _ = wait("it is there again", lambda: nodes(2), limit=40)[0]
    path, _ = wait("it is an input here", home_node)
    rack.two.cut(True)
    begin = time.monotonic()
    wait("it is gone", gone, limit=10)
    here = time.monotonic() - begin
    wait("it is its machine's own", lambda: not is_grabbed(path), limit=10)
    wait("it is nobody's lease", lambda: rack.three.state("KEYS1") == "", limit=10)
    there = time.monotonic() - begin
    within(f"silent loss: gone at its holder after {here:.1f} s, its machine's own after {there:.1f} s", (here, 5), (there, 5))
    rack.two.cut(False)
    event, _ = wait("it is there again by itself", lambda: nodes(3), limit=40)[0]
    if real(named) != event:
        raise Failed(f"its other name leads to {real(named)}")
    if not is_grabbed(path):
        raise Failed("its own machine could read it")
    holder.stop()
    wait("all is as before", lambda: gone() and not os.path.lexists(named) and rack.three.state("KEYS1") == "" and not is_grabbed(path))
    own = Keys(path)
    arrives(own)
    own.close()
    note("given back, it is its machine's keyboard again")
    whole = rack.attached(rack.four, "serial=KEYS1")
    run(*rack.two.words("attach", "serial=KEYS1", "--function", "hid", "--root", rack.two.root, "--socket", rack.two.control), ok=(1, 75))
    note("and is refused while all of the device is leased")
    whole.stop()
    wait("it is the unit's again", lambda: is_free("KEYS1"))
    os.close(hidg)
    rack.take_away(gadget)


def disguise(rack):
    """What types is a keyboard, whatever its interface says: it stays where it is if it is not named, and is not made of a mouse."""
    gadget = Gadget("dm-plain", "dummy_udc.0", "PLAIN1", "Pointer")
    gadget.function("hid.0", {"protocol": "0", "subclass": "0", "report_length": "8", "report_desc": KEYBOARD})
    rack.gadgets.append(gadget)
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config.replace("type=keyboard", "serial=OTHER"))
    wait("the rack is whole", rack.whole)
    gadget.plug()
    wait("it is known for what it is", lambda: "keyboard" in (rack.two.device("PLAIN1") or {"device": {"found": {"types": []}}})["device"]["found"]["types"])
    words = ["attach", "type=keyboard", "--root", rack.two.root, "--socket", rack.two.control, "--helper", rack.helper]
    for part in ([], ["--function", "hid"]):
        said = run(*rack.two.words(*words, *part), ok=None).stderr
        if "a keyboard is given away only if the unit's configuration names it" not in said:
            raise Failed(f"it is not refused, or for another reason: {said}")
    note("a device with keys that calls itself none stays with its machine, whole and in part")
    rack.one.kill("unit")
    rack.one.start("unit", rack.unit_config)
    wait("the rack is whole", rack.whole)
    holder = rack.attached(rack.two, "type=keyboard", "--function", "hid")
    holder.stop()
    note("and is given away where it is named")
    # The unit of a machine that was taken over has keys where a mouse was leased.
    found = rack.two.device("PLAIN1")["device"]["found"]
    identity = {key: found[key] for key in ("vendor", "product", "serial", "descriptors")}
    about = {"name": "x", "bus": 3, "vendor": 0x1D6B, "product": 0x104, "descriptor": list(KEYBOARD)}

    def made(*types):
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, two:
            return rack.ask_helper({"MakeHid": {"about": about, "identity": identity, "types": types}}, two.fileno())

    if "what was leased is no keyboard" not in made("hid", "mouse").get("Err", ""):
        raise Failed("of a mouse a keyboard is made")
    if "Made" not in str(made("hid", "keyboard").get("Ok")):
        raise Failed("of a keyboard none is made")
    note("keys of what was leased as a mouse are not let at the kernel")
    rack.take_away(gadget)
