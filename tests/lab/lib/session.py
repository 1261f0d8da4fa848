# SPDX-License-Identifier: MIT OR Apache-2.0
"""One boot of a machine: waits for its agent, then runs one command in it."""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import time
import tty
from dataclasses import dataclass, field

import channel
from errors import Interrupted, LabError, TimedOut
from machine import Machine
from processes import Processes

# Seconds. TCG needs about 15 on an idle machine; this is for one busy with something else.
BOOT_LIMIT = 300
READ_SIZE = 32 * 1024  # bytes
STDIN = 0
ESCAPE = b"\x1d"  # Ctrl-], as virsh console and telnet


@dataclass(frozen=True)
class Request:
    """What the guest is to run."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    limit: float | None = None  # seconds from the command's start
    terminal: bool = False  # on a terminal of its own, ours in raw mode
    stdin: bool = False  # with our standard input


def say(message: str) -> None:
    """A line of the lab's own, on standard error."""
    # A terminal in raw mode needs the carriage return, others do no harm by it.
    end = "\r\n" if sys.stderr.isatty() else "\n"
    print(f"lab: {message}", end=end, file=sys.stderr, flush=True)


def write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        raise Interrupted(signal.SIGPIPE) from None


class MachineEnded(Exception):
    """The machine is off or has reset itself."""


class Session:
    """A machine that is up. Made by `boot`; ends when `processes` ends."""

    def __init__(self, machine: Machine, processes: Processes) -> None:
        self._decoder = channel.Decoder()
        self._outbox = bytearray()  # bounded: we read no input while there is some
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(machine.agent_socket))
            listener.listen(1)
            qemu_log = machine.run_folder / "qemu.log"
            self.qemu = processes.start(
                machine.arguments(),
                log=qemu_log,
                # Its snapshot of the disk lies there.
                env={**os.environ, "TMPDIR": str(machine.run_folder)},
            )
            # QEMU connects before the guest starts.
            listener.settimeout(0.1)
            while True:
                try:
                    self._socket = listener.accept()[0]
                    break
                except TimeoutError:
                    if self.qemu.poll() is not None:
                        text = qemu_log.read_text(errors="replace").strip()
                        raise LabError(f"QEMU did not start:\n{text}") from None
        self._socket.setblocking(False)

    def wait_for_boot(self) -> str:
        """Returns systemd's state (`running`, `degraded`) when the guest has booted."""
        deadline = time.monotonic() + BOOT_LIMIT
        with selectors.PollSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                try:
                    frames = list(self._receive())
                except MachineEnded:
                    raise LabError("the guest stopped or reset itself while booting") from None
                if frames:
                    return frames[0][1].decode()
        raise LabError(f"the guest did not boot within {BOOT_LIMIT} s")

    def run(self, request: Request) -> int:
        """Runs the command, carries its streams, returns its exit status."""
        message = {
            "argv": request.argv,
            "env": request.env,
            "terminal": list(_window()) if request.terminal else None,
            "stdin": request.stdin,
        }
        self._outbox += channel.frame(channel.REQUEST, json.dumps(message).encode())
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.PollSelector())
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return self._relay(request, selector, stack)

    def _relay(self, request: Request, selector, stack: contextlib.ExitStack) -> int:
        deadline = None
        wants_input = False
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut
            for key, events in selector.select(left):
                if key.fd == STDIN:
                    wants_input = self._take_input(request)
                    continue
                if events & selectors.EVENT_WRITE:
                    self._flush()
                if not events & ~selectors.EVENT_WRITE:
                    continue
                for kind, payload in self._receive():
                    if kind == channel.OUTPUT:
                        write_all(1, payload)
                    elif kind == channel.ERRORS:
                        write_all(2, payload)
                    elif kind == channel.NOTE:
                        say(payload.decode())
                    elif kind == channel.STARTED:
                        wants_input = request.stdin
                        if request.terminal:
                            stack.enter_context(_raw_terminal(self._resize))
                        if request.limit:
                            deadline = time.monotonic() + request.limit
                    elif kind == channel.EXITED:
                        return int(payload)
                    elif kind == channel.FAILED:
                        raise LabError(payload.decode(errors="replace"))
            self._watch(selector, wants_input)

    def _watch(self, selector, wants_input: bool) -> None:
        """Wait for what can be carried: to the guest while there is something for it, else from our input."""
        sending = selectors.EVENT_WRITE if self._outbox else 0
        selector.modify(self._socket, selectors.EVENT_READ | sending)
        reading = STDIN in selector.get_map()
        if wants_input and not sending and not reading:
            selector.register(STDIN, selectors.EVENT_READ)
        elif reading and (sending or not wants_input):
            selector.unregister(STDIN)

    def _take_input(self, request: Request) -> bool:
        """Passes input on; returns whether there may be more."""
        data = os.read(STDIN, READ_SIZE)
        if request.terminal and ESCAPE in data:
            raise MachineEnded
        self._outbox += channel.frame(channel.INPUT, data)
        return bool(data)

    def _resize(self) -> None:
        self._outbox += channel.frame(channel.RESIZE, b"%d %d" % _window())
        # From a signal handler: the loop sleeps, and would send this only with the next key.
        self._flush()

    def _flush(self) -> None:
        try:
            del self._outbox[: self._socket.send(self._outbox)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            raise MachineEnded from None

    def _receive(self):
        try:
            data = self._socket.recv(READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            raise MachineEnded
        return self._decoder.feed(data)


def _window() -> tuple[int, int]:
    """Rows and columns of our terminal."""
    size = fcntl.ioctl(STDIN, termios.TIOCGWINSZ, bytes(8))
    return struct.unpack("HHHH", size)[:2]


@contextlib.contextmanager
def _raw_terminal(on_resize):
    """Our terminal passes every key on, until the end of the block."""
    fd = STDIN
    before = termios.tcgetattr(fd)
    signal.signal(signal.SIGWINCH, lambda *_: on_resize())
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
