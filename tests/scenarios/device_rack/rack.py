# SPDX-License-Identifier: MIT OR Apache-2.0
"""Machines of a group in network namespaces with one another's USB devices, for `device-rack`."""

import glob
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

LIMIT = 30.0  # seconds for anything
GADGETS = "/sys/kernel/config/usb_gadget"
USB = "/sys/bus/usb/devices"
HOST = "/sys/bus/usb/drivers/usbip-host"

KEYBOARD = bytes.fromhex(
    "05010906a101050719e029e71500250175019508810295017508810395057501050819012905910295017503910395067508150025650507190029658100c0"
)


class Failed(Exception):
    pass


def run(*words, ok=(0,), **options):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **options)
    if ok is not None and done.returncode not in ok:
        raise Failed(f"{' '.join(words)}: status {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}")
    return done


def write(path, text):
    with open(path, "w" if isinstance(text, str) else "wb") as file:
        file.write(text)


def line(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def real(path):
    """Where a path leads; nowhere if it goes away meanwhile."""
    try:
        return os.path.realpath(path)
    except OSError:  # of a link that is gone between looking and reading (Python before 3.13)
        return "/nowhere"


def note(text):
    print(f"  {text}", flush=True)


def within(text, *bounds):
    """Notes figures; each of the bounds is one of them and what it may be at most. Told with them, since a failure is often seen by its last line alone."""
    note(text)
    if any(figure > most for figure, most in bounds):
        raise Failed(f"too long: {text}")


def wait(what, condition, limit=LIMIT):
    """What the condition gives, once that is something, and how long that took in ms."""
    begin = time.monotonic()
    while True:
        found = condition()
        took = (time.monotonic() - begin) * 1000
        if found:
            return found, took
        if took > limit * 1000:
            raise Failed(f"{what}: not within {limit} s")
        time.sleep(0.01)


class Gadget:
    """A USB device that can be plugged in and pulled out."""

    def __init__(self, name, udc, serial, product):
        self.path, self.udc, self.serial = f"{GADGETS}/{name}", udc, serial
        os.makedirs(f"{self.path}/strings/0x409")
        os.makedirs(f"{self.path}/configs/c.1")
        for file, text in (("idVendor", "0x1d6b"), ("idProduct", "0x0104"), ("bcdUSB", "0x0200")):
            write(f"{self.path}/{file}", text)
        for file, text in (("serialnumber", serial), ("manufacturer", "Midplane lab"), ("product", product)):
            write(f"{self.path}/strings/0x409/{file}", text)

    def function(self, name, files=()):
        path = f"{self.path}/functions/{name}"
        os.makedirs(path)
        for file, value in dict(files).items():
            write(f"{path}/{file}", value)
        os.symlink(path, f"{self.path}/configs/c.1/{name}")
        return path

    def plug(self):
        write(f"{self.path}/UDC", self.udc)

    def pull(self):
        write(f"{self.path}/UDC", "\n")

    def remove(self):
        if line(f"{self.path}/UDC"):
            self.pull()
        for link in glob.glob(f"{self.path}/configs/c.1/*"):
            if os.path.islink(link):
                os.unlink(link)
        for folder in [*glob.glob(f"{self.path}/functions/*"), f"{self.path}/configs/c.1", f"{self.path}/strings/0x409", self.path]:
            os.rmdir(folder)


def imported(serial):
    """The local name of a device that came over the network."""
    for device in glob.glob(f"{USB}/*"):
        if "vhci_hcd" in real(device) and line(f"{device}/serial") == serial and line(f"{device}/authorized") == "1":
            return os.path.basename(device)
    return None


def below(serial, pattern):
    """A file of an imported device, by a pattern below its folder."""
    name = imported(serial)
    found = name and glob.glob(f"{real(f'{USB}/{name}')}/{pattern}")
    return found[0] if found else None


def block(serial):
    found = below(serial, "*/host*/target*/*/block/*")
    node = found and f"/dev/{os.path.basename(found)}"
    return node if node and os.path.exists(node) and int(line(f"{found}/size") or 0) else None


def home(serial):
    """The local name of a device where it is plugged in, and the driver that has it."""
    for device in glob.glob(f"{USB}/*"):
        if "vhci_hcd" not in real(device) and line(f"{device}/serial") == serial:
            driver = os.path.basename(real(f"{device}/driver"))
            return os.path.basename(device), driver
    return None, None


def is_free(serial):
    return home(serial)[1] == "usb"


def digest(path, count=None):
    words = ["dd", f"if={path}", "bs=256K", "iflag=direct,count_bytes", "status=none"]
    done = subprocess.run(words + ([f"count={count}"] if count else []), capture_output=True, timeout=120)
    return hashlib.sha256(done.stdout).hexdigest()


class Machine:
    def __init__(self, rack, number):
        self.rack, self.number, self.name = rack, number, f"blade{number}"
        self.space, self.root = f"dm{number}", os.path.join(rack.folder, str(number))
        self.address = f"10.80.0.{number}"
        self.processes, self.log = {}, os.path.join(self.root, "log")
        run("ip", "netns", "add", self.space)
        run("ip", "-n", self.space, "link", "set", "lo", "up")
        run("ip", "link", "add", self.space, "type", "veth", "peer", "name", "n0", "netns", self.space)
        run("ip", "-n", self.space, "address", "add", f"{self.address}/24", "dev", "n0")
        run("ip", "-n", self.space, "link", "set", "n0", "up")
        run("ip", "link", "set", self.space, "up", "master", "dmb")

    @property
    def control(self):
        return f"{self.root}/run/midplane/device-manager/control.sock"

    def words(self, *words):
        return ["ip", "netns", "exec", self.space, "device-manager", *words]

    def start(self, part, config=""):
        file = os.path.join(self.root, f"{part}.toml")
        write(file, config)
        words = self.words(part, "--config", file, "--root", self.root, "--list", self.rack.list, "-v")
        words += ["--helper", self.rack.helper] if part == "unit" else []
        with open(self.log, "a") as log:
            self.processes[part] = subprocess.Popen(words, stdout=log, stderr=log)

    def kill(self, part, how=signal.SIGKILL):
        process = self.processes.pop(part)
        process.send_signal(how)
        process.wait()

    def reload(self, part, config):
        write(os.path.join(self.root, f"{part}.toml"), config)
        self.processes[part].send_signal(signal.SIGHUP)

    def ask(self, *words, ok=(0,)):
        done = run(*self.words(*words, "--socket", self.control, "--json"), ok=ok)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    def status(self):
        try:
            return self.ask("status")
        except Failed:
            return None

    def device(self, serial):
        status = self.status()
        found = [known for known in (status or {"devices": []})["devices"] if known["device"]["found"]["serial"] == serial]
        return found[0] if found else None

    def state(self, serial):
        """Who has a device as this machine knows it; '' if nobody; None if it is not known."""
        known = self.device(serial)
        if not known:
            return None
        leases = [f["lease"]["holder"]["machine"] for f in known["device"]["functions"] if f["lease"]]
        return leases[0] if leases else ""

    def attach(self, *words):
        words = self.words("attach", "--root", self.root, "--socket", self.control, "--helper", self.rack.helper, "-v", *words)
        holder = Holder(self, words)
        self.rack.holders.append(holder)
        return holder

    def cut(self, away):
        run("ip", "link", "set", self.space, "down" if away else "up")

    def close(self):
        for part in list(self.processes):
            self.kill(part)
        run("ip", "link", "del", self.space, ok=None)
        run("ip", "netns", "del", self.space, ok=None)


class Holder:
    """An `attach` at work."""

    def __init__(self, machine, words):
        self.path = os.path.join(machine.root, f"attach{time.monotonic_ns()}")
        with open(self.path, "w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def said(self):
        return line(self.path) or ""

    def is_attached(self):
        if self.process.poll() is not None:
            raise Failed(f"attach ended with {self.process.returncode}: {self.said()}")
        return " is attached as " in self.said() or " is at " in self.said()

    def ended(self):
        return self.process.poll() is not None

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=30)
        return self.process.returncode


class Rack:
    def __init__(self, options):
        self.folder = tempfile.mkdtemp(prefix="dm-")
        self.list = os.path.join(self.folder, "group.toml")
        self.helper = os.path.join(self.folder, "helper.sock")
        self.holders, self.gadgets, self.others, self.own = [], [], [], options.own
        # Left by one that was killed.
        for name in ("dm1", "dm2", "dm3", "dm4"):
            run("ip", "link", "del", name, ok=None)
            run("ip", "netns", "del", name, ok=None)
        run("ip", "link", "del", "dmb", ok=None)
        run("ip", "link", "add", "dmb", "type", "bridge")
        run("ip", "link", "set", "dmb", "up")
        self.machines = [Machine(self, number) for number in range(1, 5)]
        self.one, self.two, self.three, self.four = self.machines
        with open(self.list, "w") as file:
            for machine in self.machines:
                file.write(f"[[member]]\nname = '{machine.name}'\naddresses = ['{machine.address}']\n")
        for machine in self.machines:
            os.makedirs(machine.root)
            words = ["midplane", "key", "--root", machine.root]
            if machine.number == 1:
                run(*words, "create", "rack", "--name", machine.name)
            else:
                key = os.path.join(self.one.root, "etc/midplane/group.key")
                run(*words, "join", "--offline", "--key", key, "--name", machine.name)
        self.start_helper()
        self.manager_config = '[manager]\nreplication = "own"\n' if self.own else ""
        for machine in self.machines:
            machine.start("serve", self.manager_config)
        wait("the managers are one group", self.managed)
        self.unit_config = '[unit]\nmanagers = ["blade3", "blade4"]\nnamed = ["type=keyboard"]\noffer = ["manufacturer=\'Midplane lab\'"]\n'
        self.one.start("unit", self.unit_config)

    def start_helper(self):
        self.helper_config = os.path.join(self.folder, "helper.toml")
        write(self.helper_config, '[unit]\nnamed = ["type=keyboard"]\n')
        log = open(os.path.join(self.folder, "helper.log"), "a")
        self.helping = subprocess.Popen(["device-manager", "helper", "--config", self.helper_config, "--helper", self.helper, "-v"], stdout=log, stderr=log)
        wait("the helper listens", lambda: os.path.exists(self.helper))

    def ask_helper(self, request, fd=None):
        """As a program of ours asks it, which somebody else may have taken over."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(self.helper)
            data = json.dumps(request).encode()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))] if fd is not None else []
            client.sendmsg([data], rights)
            return json.loads(client.recv(4096))

    def managed(self):
        """All managers see one another, and are ready for units."""
        for machine in self.machines:
            status = machine.status()
            if not status or len(status["managers"]) != len(self.machines):
                return False
        return True

    def whole(self):
        for machine in self.machines:
            status = machine.status()
            if not status or len(status["managers"]) != len(self.machines):
                return False
            if [unit["manager"] for unit in status["units"]] != ["blade3"]:
                return False
        return True

    def disk(self, serial="DISK1", size=8 << 20, udc="dummy_udc.0", ro="0"):
        path = os.path.join(self.folder, f"{serial}.img")
        if not os.path.exists(path):
            write(path, os.urandom(size))
        gadget = Gadget(f"dm-{serial}", udc, serial, "Disk")
        gadget.function("mass_storage.0", {"lun.0/removable": "1", "lun.0/ro": ro, "lun.0/file": path})
        self.gadgets.append(gadget)
        gadget.image = path
        return gadget

    def take_away(self, gadget):
        gadget.remove()
        self.gadgets.remove(gadget)

    def logs(self):
        for machine in self.machines:
            print(f"--- {machine.name}")
            for path in [machine.log, *sorted(glob.glob(f"{machine.root}/attach*"))]:
                if os.path.exists(path):
                    with open(path) as log:
                        print(f"{path}:\n" + "".join(log.readlines()[-40:]))
        print("--- helper")
        print(open(os.path.join(self.folder, "helper.log")).read()[-4000:])
        print(run("sh", "-c", "dmesg | tail -40; cat /sys/devices/platform/vhci_hcd.0/status* | grep -v ' 004 '", ok=None).stdout)

    def attached(self, machine, *words):
        """An attachment that is there. On a machine that is very busy members lose one another for a moment, and find nothing then."""
        end = time.monotonic() + LIMIT
        while True:
            holder = machine.attach(*words)
            try:
                wait(f"{words} is attached", holder.is_attached)
                return holder
            except Failed:
                passing = any(text in holder.said() for text in ("no device fits", "is not reached", "no such device"))
                if not passing or time.monotonic() > end:
                    raise

    def quiet(self):
        """Nobody holds anything any more."""
        for holder in self.holders:
            holder.stop()
        self.holders.clear()

    def close(self):
        try:
            self.quiet()
        finally:
            for machine in self.machines:
                machine.close()
            self.helping.kill()
            for process in self.others:
                process.kill()
                process.wait()
            for gadget in list(self.gadgets):
                self.take_away(gadget)
            run("ip", "link", "del", "dmb", ok=None)
            shutil.rmtree(self.folder, ignore_errors=True)
