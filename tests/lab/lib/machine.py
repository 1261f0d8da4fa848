# SPDX-License-Identifier: MIT OR Apache-2.0
"""QEMU's command line for the lab's machines."""

from dataclasses import dataclass, field
from pathlib import Path

import channel
from image import Image

QEMU = "qemu-system-x86_64"
PROFILES = ("blade",)
MEMORY_MB = 1500
# Serial lines of the machine from itself to itself: line N joins ttyS(4+2N) and ttyS(5+2N).
LINES = 10
PORTS_OF_CARD = 4
# Of two machines, the lines that join them, and which port of each is the first machine's (0 or 1); the other is the second's.
ACROSS = {0: 0, 3: 1, 7: 0}


@dataclass(frozen=True)
class Share:
    """A host folder at /mnt/NAME in the guest."""

    name: str
    folder: Path
    writable: bool = False

    def arguments(self) -> list[str]:
        readonly = "off" if self.writable else "on"
        return [
            "-fsdev",
            f"local,id={self.name},path={escape(self.folder)},security_model=none,readonly={readonly}"
            # Several host file systems under one share would otherwise show clashing inode numbers.
            ",multidevs=remap",
            "-device",
            f"virtio-9p-pci,fsdev={self.name},mount_tag={self.name}",
        ]


@dataclass
class Machine:
    """What is to be booted."""

    image: Image
    accel: str
    cpus: int
    run_folder: Path
    shares: list[Share] = field(default_factory=list)
    bmc: list[str] = field(default_factory=list)
    # Of two machines the first or the second, 0 or 1.
    of_two: int | None = None

    @property
    def console(self) -> Path:
        return self.run_folder / "console.log"

    @property
    def agent_socket(self) -> Path:
        """Where the host side listens for the agent before QEMU starts."""
        return self.run_folder / "agent.sock"

    def arguments(self) -> list[str]:
        """The whole command line, for the profile `blade`."""
        arguments = [
            *base(self.image, self.accel, self.console),
            *("-name", "midplane-lab", "-smp", str(self.cpus), "-m", str(MEMORY_MB), "-vga", "std"),
            *("-append", kernel_line("root=/dev/vda")),
            "-drive",
            f"file={escape(self.image.folder / 'root.img')},format=raw,if=virtio,snapshot=on",
            *("-device", "virtio-serial-pci"),
            *port(channel.PORT, f"path={escape(self.agent_socket)}"),
            *serial_lines(self.run_folder, self.of_two),
            *self.bmc,
        ]
        for share in self.shares:
            arguments += share.arguments()
        return arguments


def base(image: Image, accel: str, console: Path) -> list[str]:
    """What every machine has in common: stock kernel, accelerator, console to a file."""
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "q35,sata=off", "-accel", "kvm" if accel == "kvm" else "tcg,thread=multi", "-cpu", "max,svm=off,vmx=off"),
        *("-kernel", str(image.folder / "vmlinux"), "-initrd", str(image.folder / "initrd.gz")),
        *("-chardev", f"file,id=console,path={escape(console)}", "-serial", "chardev:console"),
    ]


def serial_lines(folder: Path, of_two: int | None) -> list[str]:
    """Cards of 16550s, whose ports are joined two by two, of two machines some with one another. QEMU passes bytes on as
    fast as it can, whatever the speed."""
    arguments = []
    for line in range(LINES):
        ports = [f"socket,id=line{2 * line},path={escape(folder / f'line{line}.sock')},server=on,wait=off"]
        ports.append(f"socket,id=line{2 * line + 1},path={escape(folder / f'line{line}.sock')}")
        if of_two is not None and line in ACROSS:
            # The second machine lies in a folder of the first, which is started before it.
            place = escape((folder.parent if of_two else folder) / f"across{line}.sock")
            ours = ACROSS[line] ^ of_two
            listens = "" if of_two else ",server=on,wait=off"
            ports[ours] = f"socket,id=line{2 * line + ours},path={place}{listens}"
            ports[1 - ours] = f"null,id=line{2 * line + 1 - ours}"
        for each in ports:
            arguments += ["-chardev", each]
    for first in range(0, 2 * LINES, PORTS_OF_CARD):
        ports = [f"chardev{at + 1}=line{first + at}" for at in range(PORTS_OF_CARD)]
        arguments += ["-device", ",".join(["pci-serial-4x", *ports])]
    return arguments


def kernel_line(*words: str) -> str:
    """The kernel's command line. A panic resets the machine, which ends QEMU."""
    return " ".join(
        [
            "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0",
            # Debian's kernel looks at four ports only.
            f"8250.nr_uarts={4 + 2 * LINES}",
            *words,
        ]
    )


def port(name: str, socket: str) -> list[str]:
    """A virtio-serial port of that name in the guest, joined to a listening socket."""
    return [
        *("-chardev", f"socket,id={name},{socket}"),
        *("-device", f"virtserialport,chardev={name},name={name}"),
    ]


def escape(path: Path) -> str:
    """A path inside a QEMU option, where a comma ends the value."""
    return str(path).replace(",", ",,")
