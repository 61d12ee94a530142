"""Checks that ty and pyrefly see users' programs as mypy does; ``nox -s typing`` runs it.

Each line with a ``type: ignore`` must be an error to them, and no other line. What one of them does not see yet is marked
``# unseen: ty``, and what it sees and should not, ``# odd: ty``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if path.name != Path(__file__).name]
BIN = Path(sys.executable).parent
COMMANDS: dict[str, list[str | Path]] = {
    "ty": [BIN / "ty", "check", "--python", sys.prefix, "--output-format", "concise"],
    "pyrefly": [
        BIN / "pyrefly", "check", "--python-interpreter-path", sys.executable, "--enabled-ignores", "pyrefly",
        "--output-format", "min-text",
    ],
}  # fmt: skip


def expected(checker: str) -> set[tuple[str, int]]:
    """Return the lines that must be errors to a checker."""
    found: set[tuple[str, int]] = set()
    for path in PROGRAMS:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            marks = dict(re.findall(r"# (unseen|odd): ([\w, ]+)", line))
            if checker in marks.get("odd", "") or ("type: ignore[" in line and checker not in marks.get("unseen", "")):
                found.add((path.name, number))
    return found


def reported(checker: str) -> set[tuple[str, int]]:
    """Return the lines that are errors to a checker."""
    command = [*COMMANDS[checker], *PROGRAMS]
    output = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parents[1]).stdout
    return {(name, int(line)) for name, line in re.findall(r"(\w+\.py):(\d+):\d+", output) if (FOLDER / name).exists()}


def main() -> int:
    """Compare; return the exit status."""
    status = 0
    for checker in COMMANDS:
        wanted, seen = expected(checker), reported(checker)
        for name, line in sorted(wanted ^ seen):
            print(f"{FOLDER.name}/{name}:{line}: {'an' if (name, line) in seen else 'no'} error to {checker}")
            status = 1
        print(f"{checker}: {len(wanted & seen)} slips seen")
    return status


if __name__ == "__main__":
    sys.exit(main())
