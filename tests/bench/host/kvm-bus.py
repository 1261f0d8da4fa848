#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Consoles on pseudo-terminals of this machine: how soon an echo is back, and what 64 busy ones cost, beside ser2net and
conserver, where they are installed; how soon another blade is coupled; and what the bus carries at the pace of serial lines,
reckoned in virtual time (kvm-bus/examples/bus-figures.rs)."""

import argparse
import contextlib
import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
from pathlib import Path
from statistics import median

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCH / "lib"))
from costs import cpu_seconds, pss_mib
from rows import CannotMeasure, Row, interleaved

BUSY = 64
RATE = 11_520  # bytes a second of a console, 115,200 baud
START = 60  # seconds until all consoles are there
COMMAND = "tests/bench/host/kvm-bus.py target/release/kvm-bus"


class Consoles:
    """Pseudo-terminals: what a server opens is `places`, what a blade does is done at the other end."""

    def __init__(self, count):
        self.blades, self.places, self._kept = [], [], []
        for _ in range(count):
            blade, line = os.openpty()
            tty.setraw(line)
            tty.setraw(blade)
            os.set_blocking(blade, False)
            self.blades.append(blade)
            self._kept.append(line)
            self.places.append(os.ttyname(line))

    @contextlib.contextmanager
    def echo(self):
        """Blades say what they are told."""
        end, ended = os.pipe()
        poll = select.epoll()
        for fd in (*self.blades, end):
            poll.register(fd, select.EPOLLIN)

        def run():
            while True:
                for fd, _ in poll.poll():
                    if fd == end:
                        return
                    with contextlib.suppress(OSError):
                        os.write(fd, os.read(fd, 4096))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            os.write(ended, b"x")
            thread.join()
            poll.close()
            os.close(end)
            os.close(ended)

    def flood(self, seconds):
        """All blades say as much as a line carries; how many bytes that were."""
        line, said = b"x" * 78 + b"\r\n", [0] * len(self.blades)
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            for at, blade in enumerate(self.blades):
                while said[at] + len(line) <= now * RATE:
                    try:
                        said[at] += os.write(blade, line)
                    except BlockingIOError:
                        break
            time.sleep(0.005)
        return sum(said)

    def close(self):
        for fd in self.blades + self._kept:
            os.close(fd)


class Server:
    """What serves consoles: its processes, and how to sit at one of them."""

    def __init__(self, name, folder):
        self.name, self.folder, self.processes = name, folder, []

    def start(self, *argv):
        log = open(self.folder / f"{self.name}.log", "ab")
        with log:
            process = subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def text(self):
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-500:]

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class KvmBus(Server):
    """An RMM, and an LMC for each console, in one chain of Unix sockets that is fed at both ends."""

    def __init__(self, binary, consoles, folder):
        super().__init__("kvm-bus", folder)
        self.binary = binary
        ends = f'near = "unix-listen:{folder}/0.sock"\nfar = "unix:{folder}/{len(consoles.places)}.sock"'
        port = free_ports(len(consoles.places) + 1)
        self.port = port
        rmm = folder / "rmm.toml"
        rmm.write_text(
            f'runtime_dir = "{folder}/rmm"\nstate_dir = "{folder}/state"\n[bus]\n{ends}\n'
            f'[console]\nlog_dir = "{folder}/log"\ntelnet = "127.0.0.1:{port}"\n'
        )
        for name in ("rmm", "state", "log"):
            (folder / name).mkdir()
        self.rmm = self.start(binary, "serve", "rmm", "-c", rmm)
        self.lmcs = []
        for at, place in enumerate(consoles.places, 1):
            lmc = folder / f"lmc{at}.toml"
            lmc.write_text(
                f'slot = {at}\nname = "b{at}"\nruntime_dir = "{folder}/run{at}"\n[bus]\nup = "unix:{folder}/{at - 1}.sock"\n'
                f'down = "unix-listen:{folder}/{at}.sock"\n[blade]\nconsole = "{place}"\nscreen = "none"\nkeyboard = "none"\npower = "none"\n'
            )
            self.lmcs.append(self.start(binary, "serve", "lmc", "-c", lmc))
        self.wait(len(consoles.places))

    def wait(self, count):
        end = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError):
                blades = self.ask("GET", "/v1/status")["blades"]
                if sum(blade["there"] for blade in blades) == count:
                    return
            if time.monotonic() > end:
                raise CannotMeasure(f"not all blades are there after {START} s: {self.text()}")
            time.sleep(0.2)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "rmm/control.sock"))
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        connection.close()
        return json.loads(answer)

    def sit(self, at):
        """With the program's own client, on a terminal."""
        socket_place = self.folder / "rmm/console.sock"
        return Terminal([self.binary, "console", f"b{at + 1}", "--socket", socket_place])

    def socket(self, at):
        """By telnet."""
        return Socket(self.port + 1 + at)


class Ser2net(Server):
    def __init__(self, program, consoles, folder):
        super().__init__("ser2net", folder)
        self.port = free_ports(len(consoles.places))
        text = "%YAML 1.1\n---\n"
        for at, place in enumerate(consoles.places):
            text += f"connection: &c{at}\n  accepter: telnet(rfc2217),tcp,127.0.0.1,{self.port + at}\n"
            text += f"  connector: serialdev,{place},115200n81,local\n"
        (folder / "ser2net.yaml").write_text(text)
        self.start(program, "-n", "-u", "-c", folder / "ser2net.yaml")
        listens(self.port + len(consoles.places) - 1, self)

    def socket(self, at):
        return Socket(self.port + at)


class Conserver(Server):
    def __init__(self, program, consoles, folder):
        super().__init__("conserver", folder)
        (folder / "conserver-log").mkdir()
        self.port = free_ports(8)
        text = "access * { trusted 127.0.0.1; }\n"
        text += f"default full {{ rw *; master localhost; type device; baud 115200; parity none; logfile {folder}/conserver-log/&; }}\n"
        for at, place in enumerate(consoles.places):
            text += f"console c{at} {{ include full; device {place}; }}\n"
        (folder / "conserver.cf").write_text(text)
        (folder / "conserver.passwd").write_text("*any*:\n")
        words = ("-C", folder / "conserver.cf", "-P", folder / "conserver.passwd", "-M", "127.0.0.1")
        self.start(program, *words, "-p", self.port, "-b", self.port + 1)
        listens(self.port, self)

    def sit(self, at):
        return Terminal(["console", "-M", "127.0.0.1", "-p", str(self.port), "-l", "bench", "-f", f"c{at}"])


class Terminal:
    """A client on a terminal of its own."""

    def __init__(self, argv):
        self.fd, line = os.openpty()
        tty.setraw(line)
        argv = list(map(str, argv))
        self.process = subprocess.Popen(argv, stdin=line, stdout=line, stderr=line, start_new_session=True)
        os.close(line)

    def fileno(self):
        return self.fd

    def send(self, data):
        os.write(self.fd, data)

    def receive(self, seconds):
        return os.read(self.fd, 65536) if select.select([self.fd], [], [], seconds)[0] else b""

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


class Socket:
    """A TCP client that negotiates nothing."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self):
        return self.socket.fileno()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, seconds):
        return self.socket.recv(65536) if select.select([self.socket], [], [], seconds)[0] else b""

    def close(self):
        self.socket.close()


def free_ports(count):
    """The first of so many free ones in a row, outside those that the kernel gives to others."""
    for first in range(17_000, 30_000, 100):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    each = stack.enter_context(socket.socket())
                    each.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise CannotMeasure("no free ports")


def listens(port, server):
    end = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise CannotMeasure(f"{server.name} does not listen: {server.text()}") from None
            time.sleep(0.1)


def settle(client):
    """Reads what a client says first, until its console answers."""
    end = time.monotonic() + START
    while time.monotonic() < end:
        client.send(b"~")
        while said := client.receive(0.5):
            if said.endswith(b"~"):
                while client.receive(0.2):
                    pass
                return
    raise CannotMeasure("a console does not answer")


def echo(client, count):
    """Microseconds from a byte to its echo: median and 99th of a hundred."""
    took = []
    for at in range(count):
        byte = bytes([97 + at % 26])
        begin = time.perf_counter()
        client.send(byte)
        said = client.receive(5)
        took.append((time.perf_counter() - begin) * 1e6)
        if said != byte:
            raise CannotMeasure(f"{said!r} instead of {byte!r}")
        time.sleep(0.002)
    took.sort()
    return median(took), took[min(count - 1, count * 99 // 100)]


@contextlib.contextmanager
def served(make, program, count):
    """A server of so many consoles, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="kvm-bus-bench-") as folder:
        consoles = Consoles(count)
        server = None
        try:
            server = make(program, consoles, Path(folder))
            yield server, consoles
        finally:
            if server:
                server.close()
            consoles.close()


def echoes(ours, peer, how, rounds, count):
    """Both sides' medians over rounds of the median and the 99th."""
    with contextlib.ExitStack() as stack:
        sides = []
        for make, program in (ours, peer):
            server, consoles = stack.enter_context(served(make, program, 1))
            stack.enter_context(consoles.echo())
            client = stack.enter_context(contextlib.closing(getattr(server, how)(0)))
            settle(client)
            sides.append(lambda client=client: echo(client, count))
        results = interleaved(rounds, *sides)
    return [[median(one[at] for one in side) for side in results] for at in (0, 1)]


def busy(make, program, how, seconds):
    """64 consoles that speak all the time, each with a client: share of what was said that arrived, processor in percent of
    a core and MiB of the server, and of what stands at the blades; the processor as if all had arrived."""
    with served(make, program, BUSY) as (server, consoles):
        clients = []
        try:
            clients = [getattr(server, how)(at) for at in range(BUSY)]
            with consoles.echo():
                for client in clients:
                    settle(client)
            heard, stop = [0], threading.Event()
            poll = select.epoll()
            by_fd = {client.fileno(): client for client in clients}
            for fd in by_fd:
                poll.register(fd, select.EPOLLIN)

            def drain():
                while not stop.is_set():
                    for fd, _ in poll.poll(0.2):
                        heard[0] += len(by_fd[fd].receive(0))

            reader = threading.Thread(target=drain)
            reader.start()
            all_of = [process.pid for process in server.processes]
            main, rest = all_of[:1], all_of[1:]
            before, begin = (cpu_seconds(*main), cpu_seconds(*rest)), time.monotonic()
            said = consoles.flood(seconds)
            took = time.monotonic() - begin
            end = time.monotonic() + 10
            while heard[0] < said and time.monotonic() < end:
                time.sleep(0.1)
            after = (cpu_seconds(*main), cpu_seconds(*rest))
            stop.set()
            reader.join()
            # Of what arrived: who loses half is not to look cheap.
            arrived = min(1.0, heard[0] / said)
            cpu = [(now - was) / (took * arrived) * 100 for now, was in zip(after, before)]
            return arrived, cpu, (pss_mib(*main), pss_mib(*rest)), said / took
        finally:
            for client in clients:
                client.close()


def echo_rows(binary, peers, rounds, count):
    rows = []
    for name, how, words in (("conserver", "sit", "with the client of each"), ("ser2net", "socket", "by telnet")):
        make, program = peers.get(name, (None, None))
        if not program:
            continue
        for what, (ours, peer) in zip(
            ("median", "99th of 100"), echoes((KvmBus, binary), (make, program), how, rounds, count)
        ):
            bar = 1.0 if what == "median" else None
            note = f"{words}; ours is an RMM and an LMC"
            rows.append(Row(f"console echo beside {name}: {what}", "µs", ours, COMMAND, peer=peer, at_most=bar, note=note))
    return rows


def busy_rows(binary, peers, rounds, seconds):
    rows = []
    for name, how in (("conserver", "sit"), ("ser2net", "socket")):
        make, program = peers.get(name, (None, None))
        if not program:
            continue
        ours, peer = interleaved(
            rounds, lambda: busy(KvmBus, binary, how, seconds), lambda: busy(make, program, how, seconds)
        )

        def both(pick):
            return median(map(pick, ours)), median(map(pick, peer))

        title = f"{BUSY} busy consoles beside {name}"
        offered = median(one[3] for one in ours) / 1000
        note = f"{offered:.0f} KB/s said, clients as for the echo"
        arrived = both(lambda one: one[0] * 100)
        rows.append(Row(f"{title}: arrived", "%", arrived[0], COMMAND, peer=arrived[1], at_least=1.0, note=note))
        cpu = both(lambda one: one[1][0])
        bar = 1.0 if name == "conserver" else None
        rows.append(Row(f"{title}: processor", "% of a core", cpu[0], COMMAND, peer=cpu[1], at_most=bar, note="of the RMM alone"))
        mib = both(lambda one: one[2][0])
        rows.append(Row(f"{title}: memory", "MiB", mib[0], COMMAND, peer=mib[1], note="of the RMM alone"))
        if name == "conserver":
            rows.append(Row(f"{BUSY} busy consoles: memory of the RMM", "MiB", mib[0], COMMAND, at_most=20))
            note = f"of all {BUSY}, in one chain on this machine: each passes on what is behind it"
            rows.append(Row(f"{BUSY} busy consoles: processor of the LMCs", "% of a core", median(one[1][1] for one in ours), COMMAND, note=note))
            rows.append(Row(f"{BUSY} busy consoles: memory of an LMC", "MiB", median(one[2][1] for one in ours) / BUSY, COMMAND))
    return rows


def switch_rows(binary, count):
    """By the control socket, on a chain of three."""
    with served(KvmBus, binary, 3) as (server, _):
        end = time.monotonic() + START
        while "text" not in server.ask("POST", "/v1/select", {"blade": "b1"}):
            if time.monotonic() > end:
                raise CannotMeasure("b1 is not coupled")
        took = []
        for at in range(count):
            begin = time.perf_counter()
            server.ask("POST", "/v1/select", {"blade": f"b{2 + at % 2}"})
            took.append((time.perf_counter() - begin) * 1000)
    return [Row("another blade is coupled, bus of sockets", "ms", median(took), COMMAND, note=f"worst of {count}: {max(took):.1f}")]


def bus_rows(binary):
    # Time is virtual: the build that the unit tests have made already does as well.
    target = binary.resolve().parent.parent
    build = ["cargo", "build", "--quiet", "--locked", "--workspace", "--all-features", "--example", "bus-figures"]
    subprocess.run(build, check=True, cwd=BENCH.parent.parent, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
    program = target / "debug/examples/bus-figures"
    figures = json.loads(subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout)
    command = "cargo run -p kvm-bus --example bus-figures"
    rows = []
    for of in figures:
        baud = of["baud"]

        def row(what, unit, value, at_most=None, note="", baud=baud):
            rows.append(Row(f"bus of three at {baud} baud: {what}", unit, value, command, at_most=at_most, note=note))

        carried = f"{of['console_bytes_per_second'] / 1000:.1f} KB/s; the line is in use for {of['line_used'] * 100:.0f} %, idle for "
        carried += f"{of['idle_bytes_per_second']:.0f} B/s; the rest is frames' own and messages sent again"
        row("consoles, of what the line carries", "%", of["efficiency"] * 100, note=carried)
        row("a full text screen", "bytes", of["full_screen_bytes"], 2048, f"{of['full_screen_ms']:.1f} ms; both ways, answers and beats too")
        row("a changed line", "bytes", of["line_bytes"], None, f"{of['line_ms']:.1f} ms; a changed character: {of['cell_bytes']} bytes")
        row("another blade is coupled", "ms", of["switch_ms"], None, "the worst of four, while the screen before is on its way")
        row("a key to the last blade", "ms", of["key_ms"], None, f"the worst of fifty; with consoles that flood: {of['key_under_load_ms']:.1f}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="kvm-bus, built for release")
    parser.add_argument("--full", action="store_true", help="nine rounds")
    parser.add_argument("--only", choices=("echo", "busy", "switch", "bus"), help="one part")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write the table's rows there")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    binary = options.binary.resolve()
    peers = {}
    for name, make in (("conserver", Conserver), ("ser2net", Ser2net)):
        if program := shutil.which(name):
            peers[name] = (make, program)
        else:
            print(f"{name} is not installed", flush=True)
    rounds = 9 if options.full else 3
    parts = {
        "echo": lambda: echo_rows(binary, peers, rounds, 400),
        "busy": lambda: busy_rows(binary, peers, rounds if options.full else 1, 20 if options.full else 8),
        "switch": lambda: switch_rows(binary, 200 if options.full else 40),
        "bus": lambda: bus_rows(binary),
    }
    rows, failures = [], []
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        try:
            made = part()
        except (CannotMeasure, OSError, subprocess.CalledProcessError) as error:
            failures.append({"name": f"kvm-bus: {name}", "why": str(error)})
            print(f"not measured: {name}: {error}", flush=True)
            continue
        for row in made:
            beside = "" if row.peer is None else f" beside {row.peer:.1f}"
            print(f"{row.name:<66} {row.ours:9.1f}{beside} {row.unit}  {row.note}", flush=True)
        rows += made
    if options.rows:
        options.rows.write_text(json.dumps({"rows": [row.figures() for row in rows], "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
