# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the lab's host side and the agent in the guest say to each other.

One virtio-serial port carries frames in both directions: a kind (one byte), the
payload's length (u32, big endian) and the payload. Guest and host always come from
one checkout, so frames carry no version.
"""

import struct

PORT = "org.midplane.lab"
HEADER = struct.Struct(">cI")
# Bytes. One read of a pipe (64 KiB) fits; requests and package logs are cut or far smaller.
MAX_PAYLOAD = 64 * 1024

# guest to host
HELLO = b"H"  # systemd's state after boot, once
NOTE = b"N"  # a line of the lab's own for standard error
OUTPUT = b"O"  # what the command wrote to standard output
ERRORS = b"E"  # what it wrote to standard error
STARTED = b"S"  # the command runs from now on
EXITED = b"X"  # the command's exit status in decimal; the last frame
FAILED = b"F"  # the lab itself failed, with the reason; the last frame

# host to guest
REQUEST = b"R"  # JSON: argv, env, terminal ([rows, columns] or null), stdin (bool)
INPUT = b"I"  # for the command's standard input; empty is its end
RESIZE = b"W"  # "rows columns" in decimal


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame; `payload` is at most MAX_PAYLOAD bytes."""
    assert len(payload) <= MAX_PAYLOAD
    return HEADER.pack(kind, len(payload)) + payload


class Decoder:
    """Turns the bytes of one direction into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes):
        """Takes `data` in and yields each complete frame as (kind, payload).

        Raises ValueError when a frame claims more than MAX_PAYLOAD bytes.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise ValueError(f"frame {kind!r} of {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload
