# SPDX-License-Identifier: MIT OR Apache-2.0
"""The commands `run`, `shell` and `scenarios`; see tests/lab/README.md."""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import accel
import bmc
import image
import machine
import paths
import scenarios
from errors import LAB_FAILED, TIMED_OUT, Interrupted, LabError, TimedOut
from machine import Machine, Share
from processes import Processes
from session import MachineEnded, Request, Session, say

SCRIPT_LIMIT = 600  # seconds, without --timeout
CONSOLE_TAIL = 60  # lines
BESIDE = "beside"  # folder of the second machine in that of the first
GUEST_PATH = "/mnt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=machine.PROFILES, default="blade")
    parser.add_argument("--bmc", choices=bmc.KINDS, default="bmc-sim")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--cpus", type=int, default=2, metavar="N")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep /mnt/out and the logs there")
    parser.add_argument("--machines", type=int, choices=(1, 2), default=1, help="2: another one beside it")
    debs = parser.add_mutually_exclusive_group()
    debs.add_argument(
        "--debs", type=Path, metavar="DIR", help="install these packages, not those of 'make packages'"
    )
    debs.add_argument("--no-debs", action="store_true", help="install no packages")


def _parse(command: str, words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"tests/lab/{command}")
    _machine_options(parser)
    if command == "run":
        parser.description = "Runs SCRIPT as root in a fresh guest; exits with its status."
        parser.add_argument(
            "--timeout", type=float, default=SCRIPT_LIMIT, metavar="S", help="limit for SCRIPT"
        )
        parser.add_argument("script", type=Path, metavar="SCRIPT")
        parser.add_argument("args", nargs=argparse.REMAINDER, metavar="ARG")
    elif command == "shell":
        parser.description = "A root shell in a fresh guest; Ctrl-] ends it at once."
        parser.add_argument(
            "--first", type=Path, metavar="SCRIPT", help="run this before; its status is ours"
        )
    else:
        parser.description = "Runs the scenarios, all of them in one guest."
        parser.add_argument("--full", action="store_true", help="also the long ones")
        parser.add_argument("names", nargs="*", metavar="NAME")
    return parser.parse_args(words)


def _guest_environment(options: argparse.Namespace, accelerator: str) -> dict[str, str]:
    return {
        "PATH": GUEST_PATH,
        "HOME": "/root",
        "USER": "root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "LAB": "1",
        "LAB_ACCEL": accelerator,
        "LAB_BMC": options.bmc,
    }


def _packages(options: argparse.Namespace) -> list[Share]:
    if options.no_debs:
        return []
    folder = options.debs or paths.cache() / "debs"
    if any(folder.glob("*.deb")):
        return [Share("debs", folder.resolve())]
    if options.debs:
        raise LabError(f"no packages in {folder}")
    say("no packages of this tree to install: run 'make packages' first")
    return []


def _shares(options: argparse.Namespace, run_folder: Path) -> list[Share]:
    """The folders that every guest has."""
    out = options.out or run_folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    shares = [Share("tests", paths.TESTS), Share("out", out.resolve(), writable=True)]
    if (binaries := paths.cache() / "bin").is_dir():
        shares.append(Share("bin", binaries.resolve()))
    return shares


def _script(path: Path) -> tuple[list[str], list[Share]]:
    """How the guest calls a script of the host, and the folder that it needs for that."""
    script = path.resolve()
    if not script.is_file():
        raise LabError(f"no such script: {path}")
    argv = [f"/mnt/script/{script.name}"]
    if not os.access(script, os.X_OK):
        argv.insert(0, "bash")
    return argv, [Share("script", script.parent)]


def _requests(command: str, options: argparse.Namespace) -> list[tuple[Request, list[Share], int]]:
    """What to run in guests, a boot each: the command, the folders that only this needs, and how many machines."""
    if command == "run":
        argv, shares = _script(options.script)
        return [(Request(argv + options.args, limit=options.timeout), shares, options.machines)]
    if command == "shell":
        argv, shares = ["bash"], []
        if options.first:
            script, shares = _script(options.first)
            argv = ["bash", "-c", '"$@" </dev/null; status=$?; bash; exit $status', "shell", *script]
        if os.isatty(0):
            say("a root shell in the guest; Ctrl-] or 'exit' ends it")
        return [(Request(argv, terminal=os.isatty(0), stdin=True), shares, options.machines)]
    requests = []
    for machines in (1, 2):
        chosen = [
            each for each in scenarios.choose(options.names, options.full) if each.machines == machines
        ]
        if chosen:
            argv = ["/mnt/tests/lab/guest/scenarios", *(f"{each.name}:{each.limit}" for each in chosen)]
            requests.append((Request(argv, limit=scenarios.limit(chosen)), [], machines))
    return requests


def _execute(
    command: str,
    options: argparse.Namespace,
    what: tuple[Request, list[Share], int],
    run_folder: Path,
    processes: Processes,
) -> int:
    begun = time.monotonic()
    request, shares, machines = what
    shares = shares + _packages(options) + _shares(options, run_folder)
    debian = image.get(processes)
    accelerator = accel.choose(options.accel, debian, run_folder, processes)
    request = replace(request, env=_guest_environment(options, accelerator))
    bmc_device = bmc.start(options.bmc, run_folder, processes)
    blade = Machine(debian, accelerator, options.cpus, run_folder, shares, bmc_device)
    if machines == 2:
        blade.of_two = 0
    session = Session(blade, processes)
    if machines == 2:
        _beside(blade, request, processes)
    state = session.wait_for_boot()
    say(
        f"guest {state} after {time.monotonic() - begun:.1f} s "
        f"({accelerator}, kernel {debian.kernel_version}, BMC {options.bmc})"
    )
    try:
        status = session.run(request)
    except MachineEnded:
        if command != "shell":
            raise LabError("the guest stopped or reset itself before the script ended") from None
        status = 0
    for child in processes.ended():
        if child is not session.qemu:
            say(f"{child.args[0]} ended by itself with status {child.returncode}")
    if status != 0 and command != "shell":
        _show_console(run_folder)
    return status


def _beside(first: Machine, request: Request, processes: Processes) -> None:
    """A second machine, which does what the first one's scripts tell it (guest/beside), until the run ends."""
    folder = first.run_folder / BESIDE
    folder.mkdir()
    # What an earlier run has left in the same --out would be done once more.
    out = next(share.folder for share in first.shares if share.name == "out")
    shutil.rmtree(out / BESIDE, ignore_errors=True)
    bmc_device = bmc.start("none", folder, processes)
    session = Session(replace(first, run_folder=folder, bmc=bmc_device, of_two=1), processes)
    serve = replace(request, argv=["/mnt/tests/lab/guest/beside"], limit=None, terminal=False, stdin=False)

    def follow() -> None:
        # When it ends before the run does, the first machine's scripts find that it does not answer.
        with contextlib.suppress(MachineEnded, LabError):
            session.wait_for_boot()
            session.run(serve)

    threading.Thread(target=follow, daemon=True).start()


def _show_console(run_folder: Path) -> None:
    """The end of what the guest's kernel said, which is nothing when all is well."""
    console = run_folder / "console.log"
    if not console.exists():
        return
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", console.read_text(errors="replace"))
    lines = [line for line in text.splitlines() if line.strip()]
    if lines:
        say("end of the guest's console:")
        for line in lines[-CONSOLE_TAIL:]:
            print(f"    {line}", file=sys.stderr)


def _keep_logs(run_folder: Path, out: Path | None) -> None:
    if out and out.is_dir():
        for log in run_folder.glob("*.log"):
            shutil.copy(log, out / f"lab-{log.name}")
        for log in (run_folder / BESIDE).glob("*.log"):
            shutil.copy(log, out / f"lab-{BESIDE}-{log.name}")


def _run(command: str, options: argparse.Namespace) -> int:
    # What the caller got wrong shows before anything slow is begun.
    requests = _requests(command, options)
    return max(_boot(command, options, request) for request in requests)


def _boot(command: str, options: argparse.Namespace, request: tuple[Request, list[Share], int]) -> int:
    with paths.RunFolder() as run_folder:
        try:
            with Processes() as processes:
                return _execute(command, options, request, run_folder, processes)
        except TimedOut:
            say("the script did not end within its limit")
            _show_console(run_folder)
            return TIMED_OUT
        except LabError:
            _show_console(run_folder)
            raise
        finally:
            _keep_logs(run_folder, options.out)


def _interrupt(signum: int, _frame: object) -> None:
    # Once is enough: the rest of the way out must not be cut short.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)


def main(command: str, words: list[str]) -> int:
    """Runs one of the lab's commands; returns the exit status."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:  # closed by our caller: else the next file opened would take its place
            os.open(os.devnull, os.O_RDWR)
    options = _parse(command, words)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _interrupt)
    try:
        return _run(command, options)
    except scenarios.UnknownScenario as error:
        say(str(error))
        return 2
    except LabError as error:
        say(str(error))
        return LAB_FAILED
    except Interrupted as interrupted:
        return 128 + interrupted.signum


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
