# SPDX-License-Identifier: MIT OR Apache-2.0
"""Child processes that never outlive this command.

Orderly ends (also by signal) stop them here; when this process is killed outright, the
kernel kills them for it (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

from errors import LabError

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5  # what a child may take to clean up after SIGTERM

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int):
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have gone between fork and prctl.
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class Processes:
    """The children of one run. To be used from the main thread: the kernel ties a child to the
    thread that made it."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen] = []

    def start(self, argv: list, log: Path | None = None, **popen) -> subprocess.Popen:
        """Starts a child in a session of its own, so that the terminal's signals reach us alone.

        Its output goes to `log` if given. Raises LabError when it cannot be started.
        """
        if log:
            output = open(log, "ab")
            popen |= {"stdout": output, "stderr": output}
        popen.setdefault("stdin", subprocess.DEVNULL)
        try:
            child = subprocess.Popen(
                [str(word) for word in argv],
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
                **popen,
            )
        except OSError as error:
            raise LabError(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            if log:
                output.close()
        self._children.append(child)
        return child

    def forget(self, child: subprocess.Popen) -> None:
        """For a child that was to end by itself, and has."""
        self._children.remove(child)

    def ended(self) -> list[subprocess.Popen]:
        """Those that nobody stopped but that are gone."""
        return [child for child in self._children if child.poll() is not None]

    def stop(self, child: subprocess.Popen) -> None:
        """Ends the child and its process group, gently first."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if child.poll() is not None:
                break
            os.killpg(child.pid, signum)
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self._children.remove(child)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children[:]):
            self.stop(child)
