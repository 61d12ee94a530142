"""How things are shown: in plain lines, and in a table on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from anysched._cli import table
from anysched._cli.closing import complain
from anysched._cli.json_lines import JsonReport
from anysched._cli.plain import PlainReport
from anysched._cli.report import Event, event_lines, shown_command, shown_id, shown_time
from anysched._cli.showing import report_to
from anysched._cli.table import TableReport

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("task_id", "shown"),
    [
        (7, "7"),
        (-7, "-7"),
        ("7", '"7"'),
        ("-7", '"-7"'),
        ("report", "report"),
        ("größe", "größe"),
        ("a b", '"a b"'),
        ('a"b', r'"a\"b"'),
        ("", '""'),
        ("a\nb", r'"a\nb"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_an_id_is_shown_on_one_line_and_unambiguously(task_id: int | str, shown: str) -> None:
    assert shown_id(task_id) == shown


def test_a_command_is_shown_as_in_a_shell_on_one_line() -> None:
    assert shown_command(("echo", "a b", "c\nd", "\x1b[2J")) == r"echo 'a b' 'c\nd' '\x1b[2J'"


def test_a_time_has_its_date_unless_that_is_today() -> None:
    assert shown_time(NOW, NOW) == "12:00:00.000Z"
    assert shown_time(NOW + timedelta(days=1), NOW) == "2030-01-02T12:00:00.000Z"


def test_an_event_in_lines() -> None:
    event = Event(1, "a", "unfinished", ("ls",), NOW, "pending", ("x", ""))
    lines = [line[15:] for line in event_lines(event)]
    assert lines == [
        "a           | x",
        "a           | ",
        "a           unfinished  pending, due 2030-01-01T12:00:00.000Z: ls",
    ]
    assert event_lines(Event(1, "a", "running", ("ls",)))[0].endswith("a           running")


def test_plain_lines_without_a_terminal_or_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(report_to(Terminal()), TableReport)
    assert isinstance(report_to(io.StringIO()), PlainReport)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(report_to(Terminal()), PlainReport)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "anysched._cli.table")
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(report_to(Terminal()), PlainReport)


def test_a_stream_without_an_encoding() -> None:
    stream = io.StringIO()
    with PlainReport(stream) as report:
        report.note("naïve \ud800")
    assert stream.getvalue().endswith("  # naïve \\ud800\n")


def test_what_recurs_is_due_again() -> None:
    event = Event(1, "a", "finished", "ls *", None, "exit status 0", next_due=NOW)
    assert event_lines(event)[0].endswith("a           finished    exit status 0, due again 2030-01-01T12:00:00.000Z")
    assert event_lines(Event(1, "a", "pending", "ls *\x1b", NOW))[0].endswith(r"due 2030-01-01T12:00:00.000Z: ls *\x1b")


def test_output_alone(terminal: Terminal) -> None:
    event = Event(1, "a", "running", "ls", output=("x", "\x1b[31my"))
    stream = io.StringIO()
    with PlainReport(stream) as plain:
        plain.pass_on(event)
    assert [line[15:] for line in stream.getvalue().splitlines()] == ["a           | x", "a           | \x1b[31my"]
    with TableReport(terminal) as report:
        report.pass_on(event)
    assert "a           | x" in terminal.getvalue()
    assert "\x1b[31my" not in shown(terminal)


def test_a_report_for_machines() -> None:
    stream = io.StringIO()
    with JsonReport(stream) as report:
        report.show(Event(1, "a", "pending", "ls", NOW, facts={"line": 1}))
        report.show(Event(1, "a", "finished", "ls", None, "well", ("x",), NOW, {"line": 1}))
        report.note("n\xf6te \ud800")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(datetime.fromisoformat(entry.pop("time")) for entry in entries)
    assert entries == [
        {"job": "a", "state": "pending", "detail": "", "due": "2030-01-01T12:00:00.000Z", "line": 1},
        {"job": "a", "output": "x", "line": 1},
        {"job": "a", "state": "finished", "detail": "well", "next_due": "2030-01-01T12:00:00.000Z", "line": 1},
        {"note": "n\xf6te \ud800"},
    ]
    assert stream.getvalue().isascii()


def test_what_cannot_be_written_is_let_go(tmp_path: Path) -> None:
    """A full disk: neither the schedule nor the end of the interpreter stumbles over it."""
    with Path("/dev/full").open("w") as full:
        with PlainReport(full) as report:
            report.note("lost")
            full.write("more")  # is still in the buffer at the end
        full.write("gone")
        full.flush()


def test_a_message_that_nobody_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    complain("hello")


def shown(stream: Terminal) -> str:
    """Return what was last drawn on a terminal."""
    return stream.getvalue().rpartition("┏")[2]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    return Terminal()


def test_the_table_shows_ids_states_and_due_times(terminal: Terminal) -> None:
    due = datetime.now(UTC) + timedelta(hours=30)
    with TableReport(terminal) as report:
        report.show(Event(1, "[bold]a", "pending", ("echo", "[red]x"), due))
        report.show(Event(2, 7, "pending", ("ls",), NOW - timedelta(days=10_000)))
        report.show(Event(3, "c", "pending", ("ls",), due))
        report.show(Event(3, "c", "running", ("ls",)))
        report.show(Event(3, "c", "failed", ("ls",), None, "exit status 1", ("\x1b[31moh\x1b[0m \x1b[2Jno",)))
        report.note("a note")
    text = shown(terminal)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["c", "7", "[bold]a"]
    assert "failed" in rows[0][1]
    assert "pending" in rows[1][1]
    assert rows[1][2] == "2002-08-16T12:00:00.000Z"
    assert rows[2][2].endswith("(in 108000 s)")
    assert rows[2][3] == "echo '[red]x'"
    assert "2 pending, 1 failed" in text
    lines = terminal.getvalue()
    assert "a note" in lines
    assert "oh" in lines
    assert "\x1b[2J" not in lines  # a command cannot clear the terminal


def test_what_recurs_stays_in_the_table(terminal: Terminal) -> None:
    due = datetime.now(UTC) + timedelta(hours=30)
    with TableReport(terminal) as report:
        report.show(Event(1, "a", "pending", "ls *", due))
        for _ in range(3):
            report.show(Event(1, "a", "running", "ls *"))
            report.show(Event(1, "a", "finished", "ls *", next_due=due))
    text = shown(terminal)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == 4
    assert rows[3][2].endswith("(in 108000 s)")
    assert rows[3][3] == "ls *"
    assert "1 pending, 3 finished" in text


def test_the_table_fits_the_terminal_and_prefers_what_goes_on(terminal: Terminal) -> None:
    with TableReport(terminal) as report:
        for line in range(20):
            report.show(Event(line, line, "pending", ("ls",), NOW + timedelta(seconds=-line)))
        for line in range(3):
            report.show(Event(line, line, "finished", ("ls",)))
        report.show(Event(10, 10, "running", ("ls",)))
        report.show(Event(11, 11, "cancelling", ("ls",)))
    text = shown(terminal)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("│")] == [
        "11",
        "10",
        "19",
        "18",
        "17",
        "16",
    ]
    assert "15 pending, 1 running, 1 cancelling, 3 finished" in text


def test_what_was_cancelled_at_the_end_stands_once_in_the_table(terminal: Terminal) -> None:
    with TableReport(terminal) as report:
        for line, state in ((1, "pending"), (2, "pending"), (1, "running"), (1, "cancelled")):
            report.show(Event(line, line, state, ("ls",), NOW if state == "pending" else None))  # type: ignore[arg-type]
        report.show(Event(2, 2, "unfinished", ("ls",), NOW))
        report.show(Event(1, 1, "unfinished", ("ls",)))
    text = shown(terminal)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("│")] == ["1", "2"]
    assert "1 cancelled, 1 unfinished" in text


def test_the_table_is_drawn_when_there_is_something_to_show_and_as_time_goes_on(
    terminal: Terminal, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "INTERVAL", 0.001)
    drawn: list[int] = []

    async def animate() -> None:
        with TableReport(terminal) as report:
            async with anyio.create_task_group() as group:
                group.start_soon(report.animate)
                for draws in (2, 3):
                    while terminal.getvalue().count("Command") < draws:
                        await anyio.sleep(0.001)
                report.note("something")
                while "something" not in terminal.getvalue():
                    await anyio.sleep(0.001)
                drawn.append(terminal.getvalue().count("Command"))
                group.cancel_scope.cancel()

    anyio.run(animate, backend=backend)
    assert drawn[0] >= 4


def test_a_terminal_that_has_gone_does_not_stop_the_schedule(terminal: Terminal) -> None:
    class Gone(Terminal):
        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    with TableReport(terminal) as report:
        report._console.file = Gone()
        report.note("hello")


def run_on_terminals(argv: list[str], entries: str, tmp_path: Path) -> list[tuple[int, str]]:
    """Run the command line with a pseudo-terminal as its standard output, on both backends at once."""
    path = tmp_path / "schedule.jsonl"
    path.write_text(entries)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    running: list[tuple[subprocess.Popen[bytes], int]] = []
    for backend in ("asyncio", "trio"):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-W", "error", *argv, str(path), "--backend", backend]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        running.append((process, ours))
    results: list[tuple[int, str]] = []
    for process, ours in running:
        out = b""
        with suppress(OSError):  # Linux's way to say that the other end is closed
            while chunk := os.read(ours, 65536):
                out += chunk
        os.close(ours)
        results.append((process.wait(), out.decode()))
    return results


ENTRIES = '{"id": "hello", "run": ["echo", "good day"]}\nwhat?\n{"id": "later", "in": 0.15, "run": ["false"]}'


@pytest.mark.slow
def test_a_terminal_shows_a_live_table(tmp_path: Path) -> None:
    for status, out in run_on_terminals(["-m", "anysched"], ENTRIES, tmp_path):
        assert status == 1
        for text in ("┃", "State", "Due", "hello", "pending", "finished", "failed", "| good day", "\x1b["):
            assert text in out
        assert "anysched: line 2 is malformed, skipped: not JSON" in out
        assert out.count("┏") > 2  # drawn more than once
        assert "\x1b[?25h" in out  # the cursor is back


@pytest.mark.slow
def test_a_terminal_without_rich_shows_plain_lines(tmp_path: Path) -> None:
    program = "import sys; sys.modules['rich'] = None; from anysched.__main__ import main; sys.exit(main())"
    for status, out in run_on_terminals(["-c", program], ENTRIES, tmp_path):
        assert status == 1
        assert "hello       | good day\r\n" in out
        assert "\x1b" not in out
        assert "┃" not in out
