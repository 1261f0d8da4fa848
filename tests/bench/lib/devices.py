# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the measurements of device-manager share: the rack of its scenarios, and its control socket."""

import contextlib
import importlib
import json
import socket
import sys
from pathlib import Path


def load_rack():
    """What the scenarios' racks are made of, as a module."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scenarios"))
    return importlib.import_module("device_rack.rack")


def ask(control, method, path, body=None, until=None):
    """The answer of a manager, as text: all of it, or up to the first line with `until`."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(control)
        text = "" if body is None else json.dumps(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        client.sendall((head + text).encode())
        answer = b""
        while until is None or until not in answer:
            part = client.recv(1 << 20)
            if not part:
                break
            answer += part
        return answer.decode()


def grant(control, device):
    """Leases a device, waiting for it if it is not free; the lease's number, none if it is refused."""
    # The end of the line has come with what is after its number.
    answer = ask(control, "POST", "/v1/lease", {"device": device, "queue": True}, b'"token"')
    found = answer.partition('"granted":{"no":')[2].partition(",")[0]
    with contextlib.suppress(ValueError):
        return int(found)
    return None


def release(control, lease):
    """Whether the lease is known and given back."""
    return "200 OK" in ask(control, "POST", "/v1/release", {"lease": lease}, b"\r\n")
