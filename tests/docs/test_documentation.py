"""Every Python block of the README and of the documentation runs, and prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from documentation import BLOCKS, ROOT, WORDS, Block, is_like, run_program, run_tests

import anysched
import anysched.testing

# What needs other packages is run, and driven, by the tests in ``integrations``.
OURS = [block for block in BLOCKS if "integrations" not in block.words]
PROGRAMS = [block for block in OURS if block.is_program]
TESTS = [block for block in OURS if block.words & {"test", "unittest"}]
README = ROOT / "README.md"
COLUMNS = 100
"""How many the site shows without scrolling on a screen of 1280 pixels; see its style sheet."""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_the_words_of_a_block_are_known(block: Block) -> None:
    assert block.words - {block.file_name} <= WORDS


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_code_is_no_wider_than_the_page(block: Block) -> None:
    assert max(map(len, block.code.splitlines())) <= COLUMNS


@pytest.mark.parametrize(
    ("block", "backend"),
    [pytest.param(block, name, id=f"{block.name}-{name}") for block in PROGRAMS for name in block.backends],
)
def test_programs_print_what_the_page_says(block: Block, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = run_program(block, backend, monkeypatch)
    assert is_like(output, block.output), f"it printed\n{output}"


@pytest.mark.slow
@pytest.mark.parametrize("block", TESTS, ids=lambda block: block.name)
def test_tests_pass(block: Block, tmp_path: Path) -> None:
    run_tests(block, tmp_path)


def test_what_stands_for_anything() -> None:
    assert is_like("at 12:30\ndone\n", "at ...\ndone\n")
    assert not is_like("at 12:30\nfailed\n", "at ...\ndone\n")
    assert not is_like("at 12:30\n", "")


def test_the_reference_has_every_public_name() -> None:
    reference = "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.md")))
    described = set(re.findall(r"^\.\. [\w:]+:: (?:anysched\.)?(?:testing\.)?(\w+)", reference, re.MULTILINE))
    assert {*anysched.__all__, *anysched.testing.__all__} - described == set()
    for policy in (anysched.ConflictPolicy, anysched.MissedPolicy):
        values = ", ".join(f'"{value}"' for value in get_args(policy))
        assert f":canonical: Literal[{values}]" in reference


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the command line needs POSIX")
def test_the_output_of_the_demo_is_the_real_one() -> None:
    def shape(output: str) -> list[str]:
        # Times and process IDs differ, and what happens at the same time may change places.
        varying = r"[\dT:.-]+\+00:00|pid \d+|after [\d.]+ s| \(in \d+ s\)"
        return sorted(re.sub(varying, "...", line) for line in output.splitlines())

    program = "import sys; from anysched.__main__ import main; sys.exit(main(['demo']))"
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    page = ROOT / "docs" / "command-line.md"
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert shape(result.stdout) == shape(shown)
