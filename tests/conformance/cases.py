# SPDX-License-Identifier: MIT OR Apache-2.0
"""What usb-gadget-drive's conformance consists of: each case is a client and what it is made to do."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

MIB = 1 << 20
CASES: list["Case"] = []


class Failed(Exception):
    """What a client did not get."""


@dataclass
class Case:
    client: str
    what: str
    run: Callable


def case(client: str, what: str):
    def note(function):
        CASES.append(Case(client, what, function))
        return function

    return note


def expect(yes: bool, what: str) -> None:
    if not yes:
        raise Failed(what)


@case("nbdinfo", "`--list --json`, `--size`, `--can`, `--is`; an unknown export is refused")
def _(place):
    with place.server():
        exports = json.loads(place.run("nbdinfo", "--list", "--json", place.uri("")))["exports"]
        by_name = {export["export-name"]: export for export in exports}
        expect(set(by_name) == {"d", "r"}, f"exports {list(by_name)}")
        sizes = [export["export-size"] for export in exports]
        expect(sizes == [place.size] * 2, f"sizes {sizes}")
        for can in "flush fua multi_conn trim zero fast_zero df".split():
            expect(by_name["d"][f"can_{can}"], f"d cannot {can}")
        expect(by_name["r"]["is_read_only"] and not by_name["r"]["can_trim"], "r is not read-only")
        place.run("nbdinfo", "--is", "read-only", place.uri("r"))
        place.run("nbdinfo", "--can", "cache", place.uri("d"), fails=True)
        place.run("nbdinfo", place.uri("none"), fails=True)
        place.run("nbdinfo", "--size", place.uri("d", "tcp"))


@case("nbdinfo", "`--map` tells the holes of the file; socket activation (`[ COMMAND ]`)")
def _(place):
    with place.server(filled=False):
        place.run("fallocate", "-o", MIB, "-l", MIB, "-z", place.image)
        with place.image.open("r+b") as file:
            file.seek(8 * MIB)
            file.write(b"x" * MIB)
        runs = json.loads(place.run("nbdinfo", "--map", "--json", place.uri()))
        found = [(run["offset"], run["length"], run["type"]) for run in runs if run["type"] == 0]
        expect((8 * MIB, MIB, 0) in found, f"map {runs}")
        expect(sum(run["length"] for run in runs) == place.size, f"map {runs}")
    size = place.run("nbdinfo", "--size", "--", "[", place.binary, "serve", "--share", f"d={place.image}", "]")
    expect(int(size) == place.size, f"size {size}")


def copies(how: str, tls: bool, *options):
    def run(place):
        with place.server(tls=tls):
            copy = place.dir / "copy"
            place.run("nbdcopy", *options, place.uri(how=how), copy)
            place.same(place.image, copy)
            other = place.fill(place.dir / "other", place.size - 3 * MIB - 512)
            os.truncate(other, place.size)
            place.run("nbdcopy", *options, "--flush", other, place.uri(how=how))
            place.same(place.image, other)

    return run


for _what, _how, _tls, _options in (
    ("both ways, Unix socket, one connection", "unix", False, ["--connections=1"]),
    ("both ways, Unix socket, 16 connections of 64 requests", "unix", False, ["--connections=16", "--requests=64"]),
    ("both ways, TCP, 4 connections", "tcp", False, ["--connections=4"]),
    ("both ways, TLS, 4 connections", "tls", True, ["--connections=4"]),
    ("both ways, requests of 32 MiB", "unix", False, ["--request-size=33554432", "--connections=2"]),
    ("both ways, synchronous, one request at a time", "unix", False, ["--synchronous"]),
):
    case("nbdcopy", _what)(copies(_how, _tls, *_options))


@case("nbdcopy", "a sparse file keeps its holes, to the server and back; `--allocated` fills them")
def _(place):
    with place.server():
        sparse, back = place.dir / "sparse", place.dir / "back"
        with sparse.open("wb") as file:
            for at in range(0, place.size, 8 * MIB):
                file.seek(at)
                file.write(b"y" * MIB)
            file.truncate(place.size)

        def allocated(path: Path) -> int:
            return path.stat().st_blocks * 512

        place.run("nbdcopy", "--connections=4", "--flush", sparse, place.uri())
        place.same(sparse, place.image)
        expect(allocated(place.image) <= allocated(sparse) + MIB, f"{allocated(place.image)} bytes are allocated")
        place.run("nbdcopy", place.uri(), back)
        place.same(sparse, back)
        expect(allocated(back) <= allocated(sparse) + MIB, f"{allocated(back)} bytes are allocated")
        place.run("nbdcopy", "--allocated", "--flush", sparse, place.uri())
        place.same(sparse, place.image)
        expect(allocated(place.image) >= place.size, f"{allocated(place.image)} bytes are allocated")


@case("nbdcopy", "from server to server, 4 connections")
def _(place):
    with place.server():
        (place.dir / "second").mkdir()
        second = type(place)(place.dir / "second", place.binary, place.tools, place.tls)
        with second.server(filled=False):
            place.run("nbdcopy", "--connections=4", "--flush", place.uri("r"), second.uri())
            place.same(place.image, second.image)


@case("nbdsh", "written on one connection, flushed on a second, read on a third; FUA; errors leave the connection good")
def _(place):
    script = """
import errno, nbd
uri = URI
a, b, c = (nbd.NBD() for _ in range(3))
for h in (a, b, c):
    h.connect_uri(uri)
assert a.can_multi_conn() and a.get_block_size(nbd.SIZE_MINIMUM) == 1
assert a.get_block_size(nbd.SIZE_MAXIMUM) >= 32 << 20
for round in range(200):
    data = bytes([round + 1]) * 5000
    a.pwrite(data, round * 7001)
    b.flush()
    assert c.pread(5000, round * 7001) == data
    b.pwrite(data[::2], round * 7001, nbd.CMD_FLAG_FUA)
    assert c.pread(2500, round * 7001) == data[::2]
a.set_strict_mode(0)
size = a.get_size()
def error(call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as failed:
        return failed.errnum
assert error(a.pread, 512, size) == errno.EINVAL
assert error(a.pwrite, b'x' * 512, size - 511) == errno.ENOSPC
assert error(a.trim, 512, size) == errno.EINVAL
assert error(a.zero, 512, size) == errno.ENOSPC
assert error(a.cache, 512, 0) == errno.EINVAL
assert error(a.pread, 512, 0, 1 << 9) == errno.EINVAL
assert error(a.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_NO_HOLE) == errno.EINVAL
assert a.pread(512, 0) == c.pread(512, 0)
""".replace("URI", repr(place.uri()), 1)
    with place.server():
        path = place.dir / "script.py"
        path.write_text(script)
        place.run("/usr/bin/python3", path)


@case("qemu-img", "`info`, `compare`, `map` over TCP; `convert` to qcow2 and back, 16 coroutines out of order")
def _(place):
    with place.server():
        uri, other = place.uri(), place.dir / "other.qcow2"
        info = json.loads(place.run("qemu-img", "info", "--output=json", place.uri(how="tcp")))
        expect(info["virtual-size"] == place.size, f"info {info}")
        place.run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, place.image)
        place.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", "-m", 16, uri, other)
        place.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, other)
        place.run("qemu-io", "-f", "raw", "-c", f"write -z -u 0 {place.size}", uri)
        place.run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", "-W", "-m", 16, other, uri)
        place.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", other, place.image)
        place.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", place.uri("r"), other)


@case("qemu-img", "`bench`: writes of 4 KiB with a flush after every 32, reads of 1 MiB; a qcow2 inside the share")
def _(place):
    with place.server():
        uri = place.uri()
        place.run("qemu-img", "bench", "-f", "raw", "-w", "-c", 2000, "-d", 32, "-s", 4096, "--flush-interval=32", uri)
        place.run("qemu-img", "bench", "-f", "raw", "-c", 200, "-d", 16, "-s", MIB, uri)
        place.run("qemu-img", "create", "-f", "qcow2", uri, "32M")
        place.run("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 3M", "-c", "discard 2M 1M", uri)
        place.run("qemu-img", "check", "-f", "qcow2", uri)
        place.run("qemu-io", "-f", "qcow2", "-c", "read -P 9 1M 1M", "-c", "read -P 0 2M 1M", uri)


@case("qemu-io", "writes, FUA, zeroes with and without holes and fast, discards, all misaligned as well; reads back")
def _(place):
    commands = [
        "write -P 5 4096 65536", "write -P 6 333 7777", "write -f -P 7 33333 1M", "write -z 8192 4096",
        "write -z -u 1M 1M", "write -z 2097153 5000", "write -z -f 3000001 77", "write -z -n 4M 64k", "discard 6M 1M",
        "discard 7000001 999", "aio_write -P 8 9M 1M", "aio_write -P 9 10M 1M", "aio_flush", "flush",
        "read -P 6 333 7777", "read -P 0 8192 4096", "read -P 7 33333 1015243", "read -P 0 1M 1M",
        "read -P 0 2097153 5000", "read -P 0 3000001 77", "read -P 0 4M 64k", "read -P 8 9M 1M", "read -P 9 10M 1M",
        f"read {64 * MIB - 511} 511",
    ]  # fmt: skip
    with place.server(filled=False):
        uri = place.uri()
        said = place.run("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), uri)
        expect("failed" not in said and "error" not in said.lower(), said)
        place.run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, place.image)


@case("qemu-io", "beyond the end, and writes to a read-only share, are refused")
def _(place):
    with place.server():
        before = place.image.read_bytes()
        for uri, command in (
            (place.uri(), f"write {place.size} 512"),
            (place.uri(), f"read {place.size - 1} 512"),
            (place.uri("r"), "write 0 512"),
            (place.uri("r"), "discard 0 512"),
        ):
            place.run("qemu-io", "-f", "raw", "-c", command, uri, fails=True)
        place.run("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", place.uri("r"))
        expect(place.image.read_bytes() == before, "something was written")


def fio(*options, how: str = "unix"):
    def run(place):
        with place.server(filled=False):
            place.run(
                "fio", "--name=v", "--ioengine=nbd", f"--uri={place.uri(how=how)}", "--size=64m", "--randrepeat=0",
                "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--output-format=terse",
                *options,
            )  # fmt: skip

    return run


case("fio", "nbd engine, verified: random writes of 512 B to 128 KiB, depth 16, a flush after 32")(
    fio("--rw=randwrite", "--bsrange=512-128k", "--iodepth=16", "--fsync=32")
)
case("fio", "nbd engine, verified: random reads and writes by 4 jobs at once, 4 connections, TCP")(
    fio("--rw=randrw", "--bs=4k", "--iodepth=32", "--numjobs=4", "--thread", "--offset_increment=16m", "--size=16m", how="tcp")
)
case("fio", "nbd engine, verified: trim, then write")(fio("--rw=randtrimwrite", "--bs=16k", "--iodepth=1"))


@case("nbdkit", "`nbd` plugin as a proxy: nbdcopy both ways through it")
def _(place):
    with place.server():
        copy = place.dir / "copy"
        proxy = ["nbdkit", "-U", "-", "nbd", f"uri={place.uri()}", "shared=true", "--run"]
        place.run(*proxy, f"nbdcopy --connections=4 $uri {copy}")
        place.same(place.image, copy)
        other = place.fill(place.dir / "other", place.size - 5 * MIB)
        os.truncate(other, place.size)
        place.run(*proxy, f"nbdcopy --connections=4 --flush {other} $uri")
        place.same(place.image, other)


@case("nbd-client", "`-l` lists the exports")
def _(place):
    with place.server():
        said = place.run("nbd-client", "-l", "127.0.0.1", place.port)
        expect("\nd\n" in said and "\nr\n" in said, said)


def tester(*options, tls: bool = False, fails: bool = False, unix: bool = False, size: int = 50 * MIB, name: str = "d"):
    """nbd's tester; paths in `options` are those of what was built."""

    def run(place):
        with place.server(tls=tls, size=size, filled=False):
            words = [place.tools / word if str(word).endswith(".tr") else word for word in options]
            if tls:
                blade = place.tls / "blade-1"
                words += ["-A", place.tls / "ca-cert.pem", "-H", "localhost"]
                words += ["-C", blade / "client-cert.pem", "-K", blade / "client-key.pem"]
            words += ["-u", place.dir / "sock"] if unix else ["127.0.0.1", place.port]
            place.run(place.tools / "nbd-tester-client", "-N", name, *words, fails=fails)

    return run


for _what, _run in (
    ("throughput of reads, TCP", tester()),
    ("throughput of reads, Unix socket", tester(unix=True)),
    ("throughput of writes", tester("-w")),
    ("throughput of writes with FUA and flushes", tester("-w", "-f")),
    ("writes to a read-only share are refused (`-F`)", tester("-w", "-F", name="r")),
    ("oversize requests", tester("-o", size=4 * MIB)),
    ("handshake, with options that nobody knows", tester("-h", size=4 * MIB)),
    ("integrity, by its log of transactions", tester("-i", "-t", "integrity-test.tr")),
    ("integrity, loose ordering, Unix socket", tester("-i", "-l", "-t", "integrity-test.tr", unix=True)),
    ("integrity, huge requests", tester("-i", "-t", "integrityhuge-test.tr")),
    ("TLS: integrity", tester("-i", "-t", "integrity-test.tr", tls=True)),
    ("TLS: integrity, huge requests", tester("-i", "-t", "integrityhuge-test.tr", tls=True)),
):
    case("nbd-tester-client", _what)(_run)


@case("nbd-tester-client", "TLS: a certificate of another authority is refused (`-F`)")
def _(place):
    strangers = place.dir / "strangers"
    for whom in (["ca"], ["client", "blade-1"]):
        place.run(place.binary, "cert", "--dir", strangers, *whom)
    blade = strangers / "blade-1"
    with place.server(tls=True, size=4 * MIB):
        words = ["-C", blade / "client-cert.pem", "-K", blade / "client-key.pem", "-A", place.tls / "ca-cert.pem"]
        place.run(place.tools / "nbd-tester-client", "-N", "d", *words, "-F", "-H", "localhost", "127.0.0.1", place.port)


@case("nbd-tester-client", "inetd mode (`-I`), by `serve --stdin`")
def _(place):
    place.fill(place.image, 4 * MIB)
    command = [place.binary, "serve", "--stdin", "--share", f"d={place.image}"]
    place.run(place.tools / "nbd-tester-client", "-N", "d", "-I", "--", *command)


def of_libnbd(program: str, *, port: str | None = None):
    """One of libnbd's own programs, which starts its server itself."""

    def run(place):
        # The names that are compiled into them.
        (place.dir / "tests").mkdir()
        for name in ("pki", "tests/pki"):
            (place.dir / name).symlink_to(place.tls / "pki")
        cwd = place.dir / "tests" if program.startswith("interop") else place.dir
        here = Path(__file__).resolve().parent
        env = {"PATH": f"{here}:{os.environ['PATH']}", "TMPDIR": str(place.dir), "USB_GADGET_DRIVE": str(place.binary)}
        if port:
            place.port = place.free_port()
            env |= {"PORT": str(place.port), "URI": port.format(port=place.port)}
        place.run(place.tools / "libnbd" / program, env=env, cwd=cwd)

    return run


_PORTS = {
    "connect-uri-nbd": "nbd://localhost:{port}/",
    "connect-uri-nbds-certs": "nbds://localhost:{port}/?tls-certificates=pki",
}
for _folder, _programs in (
    ("interop", "interop interop-activation interop-tls-certs interop-tls-allow-enabled interop-tls-allow-fallback "
     "list-exports socket-activation"),
    ("tests", "aio-connect aio-connect-port connect-systemd-socket-activation connect-tcp connect-tcp6 "
     "connect-tls-certs connect-unix connect-uri-nbd connect-uri-nbd-unix connect-uri-nbds-certs "
     "connect-uri-nbds-unix-certs errors-bad-cookie errors-client-oversize errors-client-unknown-flags "
     "errors-client-zerosize errors-connect-twice errors-not-negotiating errors-notify-not-blocked "
     "errors-pread-structured errors-server-invalid-offset errors-server-unadvertised-cmd "
     "errors-server-unknown-flags errors-server-zerosize get-size opt-abort opt-list-meta pread-initialize "
     "read-only-flag read-write-flag shutdown-flags"),
):  # fmt: skip
    for _program in _programs.split():
        case(f"libnbd {_folder}", f"`{_program}`")(of_libnbd(_program, port=_PORTS.get(_program)))


def parallel(program: str, patterned: bool, size: int = 64 * MIB):
    """Clients that keep 8 connections busy for ten seconds."""

    def run(place):
        with place.server(size=size, filled=False, alone=True):
            if patterned:
                place.image.write_bytes(b"".join(at.to_bytes(8, "big") for at in range(0, place.size, 8)))
            place.run(place.tools / "libnbd" / program, place.dir / "sock")

    return run


case("libnbd tests", "`aio-parallel`: 8 connections of 64 requests, checked")(parallel("aio-parallel", True))
case("libnbd tests", "`aio-parallel-load`")(parallel("aio-parallel-load", False))
case("libnbd tests", "`synch-parallel`: 8 connections, checked")(parallel("synch-parallel", True, 8 * MIB))

# Client, what, the scenario in the lab.
LAB = [
    (
        "Linux's nbd.ko, by `nbd-client`",
        "mkfs.ext4, files, `fstrim`, fsck, over TCP and over four connections of a Unix socket",
        "105-drive-kernel-client.sh",
    ),
]

DECLINED = [
    ("libnbd interop", "`dirty-bitmap`", "it reads bitmaps of a qcow2; the shares have none"),
    ("libnbd interop", "`structured-read`", "it demands a hole of 512 B, in the middle of a read, as a chunk; no file has one so small, and reads are answered with data alone"),
    ("libnbd interop", "`*-tls-psk`", "no shared keys: blades are told apart by certificates"),
    ("libnbd tests", "`*-tls` of the parallel ones", "shared keys as well; nbd-tester-client and nbdcopy load TLS"),
    ("libnbd tests", "`errors-server-unaligned`, `errors-client-unaligned`", "they demand a smallest block of 512 B; ours is 1 B, and such a read is served"),
    ("libnbd tests", "`errors-client-unadvertised-cmd`", "its server offers no trim; ours always does. It is a test of the client"),
    ("libnbd tests", "`oldstyle`, `newstyle-limited`", "handshakes that proto.md calls obsolete"),
    ("libnbd tests", "`opt-info`, `opt-list`, `meta-base-allocation`, `eflags`, `errors-multiple-disconnects`", "their server is a script of answers that no file gives; nbdinfo and nbdsh ask for the same"),
    ("libnbd tests", "`server-death`, `closure-lifetimes`", "tests of the client, for which the server has to be slow"),
    ("nbd", "`tree`, `rotree`, `dirconfig`, `cfgmulti`", "they test nbd-server's own configuration"),
]  # fmt: skip
