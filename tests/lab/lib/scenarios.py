# SPDX-License-Identifier: MIT OR Apache-2.0
"""The scenarios under tests/scenarios and what their headers say."""

import re
from dataclasses import dataclass
from pathlib import Path

import paths

FOLDER = paths.TESTS / "scenarios"
DEFAULT_LIMIT = 120  # seconds
# Seconds. The guest's driver ends a scenario itself; this is for a guest that does not.
MARGIN = 60


class UnknownScenario(Exception):
    """A name for which there is no scenario."""


@dataclass(frozen=True)
class Scenario:
    """One script; its name is the file's without `.sh`, its header is the first block of comments."""

    name: str
    limit: int  # seconds
    full: bool  # runs only with --full, or by name
    machines: int  # one, or two whose lines are joined


def choose(names: list[str], full: bool) -> list[Scenario]:
    """The scenarios named, or else all that fit, in order of their names."""
    found = {
        path.stem: _read(path) for path in sorted(FOLDER.glob("*.sh")) if not path.name.startswith("lib")
    }
    wanted = [name.removesuffix(".sh").split("/")[-1] for name in names]
    for name in wanted:
        if name not in found:
            raise UnknownScenario(f"no scenario {name}; there are: {' '.join(found)}")
    if wanted:
        return [scenario for name, scenario in found.items() if name in wanted]
    return [scenario for scenario in found.values() if full or not scenario.full]


def limit(chosen: list[Scenario]) -> int:
    """Seconds for all of them together."""
    return sum(scenario.limit for scenario in chosen) + MARGIN


def _read(path: Path) -> Scenario:
    header = re.match(r"(?:#.*\n)*", path.read_text())[0]
    limit = re.search(r"^# limit: (\d+)", header, re.M)
    full = re.search(r"^# profile: full\b", header, re.M)
    machines = re.search(r"^# machines: ([12])\b", header, re.M)
    return Scenario(
        path.stem, int(limit[1]) if limit else DEFAULT_LIMIT, bool(full), int(machines[1]) if machines else 1
    )
