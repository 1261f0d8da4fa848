# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where things lie: the checkout, the cache, and one run's private folder."""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from errors import LabError

LAB = Path(__file__).resolve().parent.parent
TESTS = LAB.parent


def cache() -> Path:
    """The project's cache, shared by all checkouts of this user."""
    if own := os.environ.get("MIDPLANE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "midplane"


def _lock(path: Path, wait: bool) -> int | None:
    """An exclusive lock on the file, held until the descriptor is closed; None when another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


class RunFolder:
    """A private folder that goes with the run.

    A run that was killed outright cannot remove its folder; the next run does. A folder
    is in use as long as its lock file is locked.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir()) / f"midplane-lab-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        info = base.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            raise LabError(f"{base} belongs to somebody else; remove it or set TMPDIR")
        guard = _lock(base / ".lock", wait=True)
        try:
            for folder in base.iterdir():
                if folder.is_dir() and (free := _lock(folder / "lock", wait=False)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(free)
            self.path = Path(tempfile.mkdtemp(dir=base, prefix=""))
            self._lock = _lock(self.path / "lock", wait=True)
        finally:
            os.close(guard)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
