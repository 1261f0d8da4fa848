# SPDX-License-Identifier: MIT OR Apache-2.0
"""The Debian image that `tests/lab/build` makes."""

import fcntl
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import paths
from errors import LabError
from processes import Processes


@dataclass(frozen=True)
class Image:
    """One image; `lock` keeps it from being removed as old while this process lives."""

    folder: Path
    lock: int

    @property
    def kernel_version(self) -> str:
        return (self.folder / "kernel-version").read_text().strip()


def get(processes: Processes) -> Image:
    """The image of this checkout, made first if need be."""
    build = processes.start([paths.LAB / "build"], stdout=subprocess.PIPE, text=True)
    output = build.communicate()[0]
    processes.forget(build)
    if build.returncode != 0:
        raise LabError("there is no image to boot")
    folder = Path(output.strip())
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return Image(folder, lock)
