# SPDX-License-Identifier: MIT OR Apache-2.0
"""The BMC beside the guest: QEMU's device, and the simulator behind it."""

import os
import socket
import subprocess
import time
from pathlib import Path

import machine
import paths
from errors import LabError
from processes import Processes

KINDS = ("bmc-sim", "ipmi_sim", "none")
# The guest's way to the simulator's control channel: /dev/virtio-ports/NAME.
CONTROL_PORT = "org.midplane.bmc"
_START_SECONDS = 10


def start(kind: str, run_folder: Path, processes: Processes) -> list[str]:
    """Starts the simulator if there is one; returns QEMU's arguments for it."""
    if kind == "bmc-sim":
        return _bmc_sim(run_folder, processes)
    if kind == "ipmi_sim":
        return _ipmi_sim(run_folder, processes)
    return [*("-device", "ipmi-bmc-sim,id=bmc0"), *("-device", "isa-ipmi-kcs,bmc=bmc0")]


def _external(messages: str, control: str) -> list[str]:
    return [
        *("-chardev", f"socket,id=bmc,{messages},reconnect=1"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc", "-device", "isa-ipmi-kcs,bmc=bmc0"),
        *machine.port(CONTROL_PORT, control),
    ]


def _bmc_sim(run_folder: Path, processes: Processes) -> list[str]:
    own = os.environ.get("MIDPLANE_BMC_SIM")
    program = Path(own) if own else paths.cache() / "bin" / "bmc-sim"
    if not program.exists():
        raise LabError(
            f"no BMC simulator at {program}: run 'make packages' first, "
            "name one in MIDPLANE_BMC_SIM, or take another with --bmc"
        )
    messages, control = run_folder / "bmc.sock", run_folder / "ctl.sock"
    log = run_folder / "bmc.log"
    child = processes.start(
        [program, "serve", "--vm", f"unix:{messages}", "--control", f"unix:{control}"], log=log
    )
    _wait_until(lambda: messages.exists() and control.exists(), child, log)
    return _external(f"path={machine.escape(messages)}", f"path={machine.escape(control)}")


def _ipmi_sim(run_folder: Path, processes: Processes) -> list[str]:
    ports = dict(zip(("lan", "vm", "console"), _free_ports(3)))
    config = (paths.LAB / "ipmi_sim" / "lan.conf").read_text()
    for name, number in ports.items():
        config = config.replace(f"@{name}@", str(number))
    (run_folder / "lan.conf").write_text(config)
    (run_folder / "ipmi_sim.state").mkdir()
    log = run_folder / "bmc.log"
    child = processes.start(
        [
            *("ipmi_sim", "-c", run_folder / "lan.conf", "-f", paths.LAB / "ipmi_sim" / "bmc.emu"),
            *("-s", run_folder / "ipmi_sim.state"),
        ],
        log=log,
        # It ends with its standard input: the pipe stays open as long as the child's record lives.
        stdin=subprocess.PIPE,
    )
    _wait_until(lambda: _listens(ports["vm"]) and _listens(ports["console"]), child, log)
    return _external(
        f"host=127.0.0.1,port={ports['vm']}", f"host=127.0.0.1,port={ports['console']}"
    )


def _free_ports(count: int) -> list[int]:
    """TCP ports on the loopback that were free just now (ipmi_sim takes numbers only)."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _listens(port: int) -> bool:
    # Looked up, not tried out: ipmi_sim takes one connection on its VM port and would hold ours.
    state = f":{port:04X} 00000000:0000 0A"
    return state in Path("/proc/net/tcp").read_text()


def _wait_until(ready, child: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if child.poll() is not None:
            raise LabError(f"{child.args[0]} ended at once:\n{log.read_text(errors='replace')}")
        if time.monotonic() > deadline:
            raise LabError(f"{child.args[0]} did not listen within {_START_SECONDS} s")
        time.sleep(0.02)
