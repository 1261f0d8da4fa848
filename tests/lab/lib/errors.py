# SPDX-License-Identifier: MIT OR Apache-2.0
"""How a run of the lab ends when not by its script's own status."""

TIMED_OUT = 124  # as timeout(1)
LAB_FAILED = 125


class LabError(Exception):
    """The lab itself failed; the message says at what, and the remedy where there is one."""


class TimedOut(Exception):
    """The script did not end within its limit."""


class Interrupted(BaseException):
    """A signal asked this command to end. Not an Exception: nothing on the way may handle it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
