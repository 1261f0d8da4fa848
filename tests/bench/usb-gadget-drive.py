#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A drive from our server over the agent's kernel data path, beside the kernel's f_mass_storage over a local file:
two controllers of dummy_hcd in one guest, whose host reads and writes them by turns. Nothing is pinned."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, "/mnt/tests/bench/lib")
from rows import CannotMeasure, Row, interleaved, measure, medians, output

FULL = "--full" in sys.argv[1:]
SECONDS, ROUNDS = (10, 5) if FULL else (4, 3)
WAIT = 60  # seconds
MIB = 1 << 20
SIZE = 64 * MIB
WHERE = Path("/dev/shm")
CELLS = (
    ("read 1M qd1", "read", "1M", 1),
    ("write 1M qd1", "write", "1M", 1),
    ("randread 4k qd1", "randread", "4k", 1),
    ("randread 4k qd8", "randread", "4k", 8),
    ("randwrite 4k qd1", "randwrite", "4k", 1),
)
GADGET = Path("/sys/kernel/config/usb_gadget/bench")


def until(what: str, found):
    """What `found` gives, as soon as it gives something."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if got := found():
            return got
        time.sleep(0.1)
    raise CannotMeasure(f"{what}: not within {WAIT} s")


def node(vendor: str) -> str | None:
    """The host's disk of that vendor with a medium in it."""
    for disk in Path("/sys/block").glob("sd*"):
        with contextlib.suppress(OSError):
            same = (disk / "device/vendor").read_text().startswith(vendor)
            if same and int((disk / "size").read_text()) == SIZE // 512:
                return f"/dev/{disk.name}"
    return None


@contextlib.contextmanager
def ours():
    """Server and agent on the first controller."""
    server = ["usb-gadget-drive", "serve", "--share", f"d={WHERE}/ours", "--unix", f"{WHERE}/sock"]
    agent = "usb-gadget-drive agent --udc dummy_udc.0 --functions 1 --disks 1 --cds 0 --no-input --remove".split()
    with contextlib.ExitStack() as ends:
        for command in (server, [*agent, "--drive", f"unix:{WHERE}/sock:d"]):
            child = ends.enter_context(subprocess.Popen(command))
            ends.callback(child.terminate)
            until("the server listens", (WHERE / "sock").exists)
        yield until("our drive", lambda: node("Midplane"))


@contextlib.contextmanager
def peer():
    """A gadget by hand on the second one."""
    function, config = GADGET / "functions/mass_storage.0", GADGET / "configs/c.1"
    function.mkdir(parents=True)
    config.mkdir()
    for name, value in (("idVendor", "0x1d6b"), ("idProduct", "0x0104")):
        (GADGET / name).write_text(value)
    (function / "lun.0/inquiry_string").write_text("Kernel  Local           ")
    (function / "lun.0/file").write_text(f"{WHERE}/peer")
    (config / "mass_storage.0").symlink_to(function)
    (GADGET / "UDC").write_text("dummy_udc.1")
    try:
        yield until("the kernel's drive", lambda: node("Kernel"))
    finally:
        (GADGET / "UDC").write_text("\n")
        (config / "mass_storage.0").unlink()
        for folder in (config, function, GADGET):
            folder.rmdir()


def gadget_path():
    """the gadget path beside f_mass_storage over a local file"""
    for name in ("ours", "peer"):
        with (WHERE / name).open("wb") as file:
            for _ in range(SIZE // MIB):
                file.write(b"\x5a" * MIB)
    rows = []
    with ours() as one, peer() as other:
        for name, rw, size, depth in CELLS:
            options = f"--name=n --direct=1 --ioengine=libaio --rw={rw} --bs={size} --iodepth={depth} --size=64m"
            options += f" --time_based --runtime={SECONDS} --randrepeat=0 --norandommap --output-format=json"

            def rate(disk, options=options, rw=rw, size=size):
                said = output("fio", f"--filename={disk}", *options.split(), pinned=False)
                side = json.loads(said[said.index("{") :])["jobs"][0]["write" if "write" in rw else "read"]
                return side["iops"] if size == "4k" else side["bw_bytes"] / 1e6

            ratio = medians(interleaved(ROUNDS, lambda: rate(one), lambda: rate(other)))
            unit = "per s" if size == "4k" else "MB/s"
            note = f"{ROUNDS} rounds of {SECONDS} s; more is better"
            rows.append(Row(f"gadget path, {name}", unit, ratio[0], f"fio --filename=DISK {options}", ratio[1], note=note))
    return rows


if __name__ == "__main__":
    subprocess.run("modprobe -a libcomposite usb_f_mass_storage nbd usb_storage".split(), check=True)
    subprocess.run("modprobe dummy_hcd num=2 is_high_speed=1".split(), check=True)
    measure(gadget_path)
