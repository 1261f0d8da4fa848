# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the helper refuses."""

import glob
import json
import os
import socket

from device_rack.rack import Failed, home, imported, is_free, note, real, run, USB, wait


def forge(rack):
    """What is in use stays; who has no lease gets nothing; what is not what was leased is no driver's."""
    disk = rack.disk()
    run("mkfs.ext4", "-q", "-F", disk.image)
    disk.plug()
    wait("it is known", lambda: rack.two.state(disk.serial) == "")
    bus_id, _ = home(disk.serial)
    node, _ = wait("it has a node", lambda: (glob.glob(f"{real(f'{USB}/{bus_id}')}/*/host*/target*/*/block/*") or [None])[0])
    where = os.path.join(rack.folder, "mnt")
    os.makedirs(where)
    wait("it is mounted", lambda: run("mount", f"/dev/{os.path.basename(node)}", where, ok=None).returncode == 0)
    words = rack.two.words("attach", "type=disk", "--root", rack.two.root, "--socket", rack.two.control, "--helper", rack.helper)
    wait("it is refused", lambda: "in use at its unit" in run(*words, ok=None).stderr, limit=15)
    run(*words, ok=(75,))
    note("a disk that is mounted where it is is not given away")
    run("umount", where)
    wait("it is for use again", lambda: "in use" not in json.dumps(rack.two.device(disk.serial)), limit=10)

    # The helper does not believe who asks it.
    ask, found = rack.ask_helper, rack.two.device(disk.serial)["device"]["found"]
    identity = {key: found[key] for key in ("vendor", "product", "serial", "descriptors")}
    one, two = socket.socketpair()
    for wrong in ({"serial": "other"}, {"descriptors": 1}):
        answer = ask({"Export": {"bus_id": bus_id, "identity": {**identity, **wrong}}}, one.fileno())
        if "another device" not in answer.get("Err", ""):
            raise Failed(f"it gives away another device: {answer}")
    for path in ("../../1-1", "usb1", bus_id + ":1.0"):
        if "Err" not in ask({"Export": {"bus_id": path, "identity": identity}}, one.fileno()):
            raise Failed(f"it takes {path} for a device")
    note("the helper gives nothing away that is not what it is to be")

    # The same device is given away, and claimed to be another at the other end.
    given = ask({"Export": {"bus_id": bus_id, "identity": identity}}, one.fileno())["Ok"]["Exported"]
    answer = ask({"Import": {"exported": given, "identity": {**identity, "descriptors": 1}}}, two.fileno())
    if "not what was leased" not in answer.get("Err", ""):
        raise Failed(f"it lets drivers have it: {answer}")
    if imported(disk.serial):
        raise Failed("it is there")
    note("what comes over the network and is not what was leased is let at no driver")
    one.close()
    two.close()
    ask({"GiveBack": bus_id})
    wait("it is the unit's again", lambda: is_free(disk.serial))
    # Somebody without a key, and somebody with nonsense.
    for port in (7461, 7462, 7464):
        code = f"import socket,os; s=socket.create_connection(('10.80.0.{3 if port != 7462 else 1}',{port})); s.sendall(os.urandom(2000)); s.settimeout(5); print(len(s.recv(10)))"
        run("ip", "netns", "exec", rack.four.space, "python3", "-c", code, ok=None)
    wait("nobody minds", rack.whole)
    note("nonsense at the ports is turned away")
    rack.take_away(disk)
