# SPDX-License-Identifier: MIT OR Apache-2.0
"""KVM where it works, TCG where not.

That /dev/kvm opens says little: on some nested hosts a stock kernel never gets through
its boot. So the lab's own kernel is booted once up to its first process, and the result
is kept for this kernel, QEMU, host kernel and processor.
"""

import hashlib
import os
import subprocess
import time
from pathlib import Path

import machine
import paths
from image import Image
from processes import Processes
from session import say

# Seconds. On bare metal the probe takes one; what takes longer is not worth having.
PROBE_LIMIT = 15


def choose(wanted: str, image: Image, run_folder: Path, processes: Processes) -> str:
    """`kvm` or `tcg`: what was wanted, or for `auto` what this machine can do."""
    if wanted != "auto":
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    known = paths.cache() / "lab" / ".accel" / _key(image)
    if not known.exists():
        say(f"trying once whether KVM works here, at most {PROBE_LIMIT} s")
        result = "kvm" if _probe(image, run_folder, processes) else "tcg"
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(result)
    return known.read_text()


def _key(image: Image) -> str:
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "flags", "microcode"))
    ]
    qemu = subprocess.run([machine.QEMU, "--version"], stdout=subprocess.PIPE, check=True).stdout
    facts = [image.kernel_version, os.uname().release, os.uname().version, *sorted(set(cpu))]
    return hashlib.sha256(("\n".join(facts)).encode() + qemu).hexdigest()[:16]


def _probe(image: Image, run_folder: Path, processes: Processes) -> bool:
    console = run_folder / "probe.log"
    qemu = processes.start(
        [
            *machine.base(image, "kvm", console),
            *("-m", "512", "-append", machine.kernel_line("lab.probe")),
        ],
        log=run_folder / "probe-qemu.log",
    )
    deadline = time.monotonic() + PROBE_LIMIT
    try:
        qemu.wait(deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        pass
    processes.stop(qemu)
    return console.exists() and b"lab: probe ok" in console.read_bytes()
