"""The reports: plain lines, and a table on a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from zoneinfo import ZoneInfo

import anyio
import pytest

from anysched._cli.logs import logs_to
from anysched._cli.reports import table
from anysched._cli.reports.events import Event, Report, event_lines, state_lines
from anysched._cli.reports.formats import TimeFormat, format_command, format_duration, format_id
from anysched._cli.reports.json_lines import JsonReport
from anysched._cli.reports.plain import PlainReport
from anysched._cli.reports.report import for_stream
from anysched._cli.reports.table import TableReport
from anysched._cli.reports.terminal import EchoControl
from anysched._cli.shutdown import state_actions
from anysched._cli.streams import leave_streams, prepare_process, print_error, write_line
from anysched._cli.writer import Writer

NOW = datetime(2020, 1, 1, 12, tzinfo=UTC)
SHOWN_NOW = "2020-01-01T12:00:00.000+00:00"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

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
    assert format_id(task_id) == shown


def test_a_command_is_shown_as_in_a_shell_on_one_line() -> None:
    assert format_command(("echo", "a b", "c\nd", "\x1b[2J")) == r"echo 'a b' 'c\nd' '\x1b[2J'"


def test_on_a_terminal_a_time_has_its_date_unless_that_is_today() -> None:
    brief = TimeFormat(ZoneInfo("Europe/Paris"), is_brief=True)
    assert brief(NOW, NOW) == "13:00:00"
    assert brief(NOW + timedelta(days=1), NOW) == "2020-01-02 13:00:00"


def test_where_it_is_not_a_terminal_it_also_has_its_offset() -> None:
    assert TimeFormat()(NOW, NOW) == "2020-01-01T12:00:00.000+00:00"
    assert TimeFormat(ZoneInfo("Asia/Kolkata"))(NOW, NOW) == "2020-01-01T17:30:00.000+05:30"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"), (0.2, "1 s"), (59.5, "1 min"), (60, "1 min"), (61, "1 min 1 s"), (3599, "59 min 59 s"),
        (51_082, "14 h 11 min"), (86_400, "1 d"), (86_400 + 60, "1 d"), (400 * 86_400, "400 d"),
    ],
)  # fmt: skip
def test_a_duration_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_an_event_in_lines() -> None:
    event = Event(1, "a", "unfinished", ("ls",), NOW, "pending", ("x", ""))
    lines = [line[31:] for line in event_lines(event, TimeFormat())]
    assert lines == [
        "a           | x",
        "a           | ",
        f"a           unfinished  pending, due {SHOWN_NOW}: ls",
    ]
    assert event_lines(Event(1, "a", "running", ("ls",)), TimeFormat())[0].endswith("a           running")


def test_plain_lines_without_a_terminal_or_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(for_stream(Terminal()), TableReport)
    assert isinstance(for_stream(io.StringIO()), PlainReport)
    for incapable in ("dumb", "unknown"):
        monkeypatch.setenv("TERM", incapable)
        assert isinstance(for_stream(Terminal()), PlainReport)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "anysched._cli.reports.table")
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(for_stream(Terminal()), PlainReport)


def test_a_stream_without_an_encoding() -> None:
    stream = io.StringIO()
    with PlainReport(stream) as report:
        report.note("naïve \ud800")
    assert stream.getvalue().endswith("  # naïve \\ud800\n")


def test_what_recurs_is_due_again() -> None:
    event = Event(1, "a", "finished", "ls *", None, "exit status 0", next_due=NOW)
    (line,) = event_lines(event, TimeFormat())
    assert line.endswith(f"a           finished    exit status 0, due again {SHOWN_NOW}")
    (line,) = event_lines(Event(1, "a", "pending", "ls *\x1b", NOW), TimeFormat())
    assert line.endswith(rf"due {SHOWN_NOW}: ls *\x1b")


def test_what_is_still_to_come_is_also_shown_as_a_duration() -> None:
    (line,) = event_lines(Event(1, "a", "pending", "ls", datetime.now(UTC) + timedelta(hours=30)), TimeFormat())
    assert line.endswith(" (in 1 d 6 h): ls")


def test_output_alone(terminal: Terminal) -> None:
    event = Event(1, "a", "running", "ls", output=("x", "\x1b[31my"))
    stream = io.StringIO()
    with PlainReport(stream) as plain:
        plain.pass_on(event)
    assert [line[31:] for line in stream.getvalue().splitlines()] == ["a           | x", "a           | \x1b[31my"]
    with TableReport(terminal) as report:
        report.pass_on(event)
    assert "a           | x" in terminal.getvalue()
    assert "\x1b[31my" not in shown(terminal)


def test_a_report_for_machines() -> None:
    stream = io.StringIO()
    with JsonReport(stream) as report:
        report.show(Event(1, "a", "pending", "ls", NOW, fields={"line": 1}))
        report.show(Event(1, "a", "finished", "ls", None, "well", ("x",), NOW, {"line": 1}))
        report.note("n\xf6te \ud800", level="warning")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(datetime.fromisoformat(entry.pop("time")) for entry in entries)
    assert entries == [
        {"level": "info", "job": "a", "state": "pending", "detail": "", "due": "2020-01-01T12:00:00.000Z", "line": 1},
        {"level": "info", "job": "a", "output": "x", "line": 1},
        {
            "level": "info",
            "job": "a",
            "state": "finished",
            "detail": "well",
            "next_due": "2020-01-01T12:00:00.000Z",
            "line": 1,
        },
        {"level": "warning", "note": "n\xf6te \\ud800"},
    ]
    assert stream.getvalue().isascii()


def test_what_cannot_be_written_is_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """A full disk affects neither the schedule nor the exit of the interpreter."""
    with Path("/dev/full").open("w") as full:
        with PlainReport(full) as report:
            report.note("lost")
            report.note("lost")
        full.flush()
    expected = "anysched: 2 lines of the report could not be written: No space left on device\n"
    assert capfd.readouterr().err == expected


def test_a_message_that_nobody_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    print_error("hello")


def shown(stream: Terminal) -> str:
    """Return the last drawing on a terminal."""
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
    assert rows[1][2] == "1992-08-15 12:00:00"
    assert rows[2][2].endswith("(in 1 d 6 h)")
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
    assert rows[3][2].endswith("(in 1 d 6 h)")
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
    ]
    assert "15 pending, 1 running, 1 cancelling, 3 finished" in text


def test_the_table_never_begins_in_the_first_line_of_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tmux would add the table to its history each time that it is redrawn."""
    for lines, rows in ((12, 10), (9, 7), (5, 3), (2, 1), (1, 1)):
        monkeypatch.setenv("LINES", str(lines))
        with TableReport(terminal) as report:
            for line in range(20):
                report.show(Event(line, line, "pending", ("ls",), NOW))
            terminal.truncate(0)
            report._draw()
            report._draw()
            assert report._rows == rows
            assert f"\x1b[{lines - 1}A" not in terminal.getvalue() or lines == 2


def test_in_a_narrow_terminal_ids_and_states_have_room(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with TableReport(terminal) as report:
        report.show(Event(1, "job-100", "pending", ("ls",), datetime.now(UTC) + timedelta(seconds=1)))
    (row,) = (line for line in shown(terminal).splitlines() if line.startswith("│"))
    assert "job-100" in row
    assert "pending" in row
    assert "(in" not in row


def test_control_characters_in_output_do_not_change_the_terminal(terminal: Terminal) -> None:
    with TableReport(terminal) as report:
        output = ("\x0e\x9b31m\x7f", "tab\tend\x1b", "\x1b[1mbold\x1b[0m")
        report.pass_on(Event(1, "a", "running", "ls", output=output))
    lines = terminal.getvalue()
    assert "| \u240e\ufffd31m\ufffd" in lines
    assert "end\u241b" in lines
    assert "\x1b[1mbold\x1b[0m" in lines
    assert not {"\x0e", "\x9b", "\x7f"} & set(lines)


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

    async def refresh() -> None:
        with TableReport(terminal) as report:
            async with anyio.create_task_group() as group:
                group.start_soon(report.refresh)
                for draws in (2, 3):
                    while terminal.getvalue().count("Command") < draws:
                        await anyio.sleep(0.001)
                report.note("something")
                while "something" not in terminal.getvalue():
                    await anyio.sleep(0.001)
                drawn.append(terminal.getvalue().count("Command"))
                group.cancel_scope.cancel()

    anyio.run(refresh, backend=backend)
    assert drawn[0] >= 4


def test_a_terminal_that_has_gone_does_not_stop_the_schedule(terminal: Terminal) -> None:
    class Gone(Terminal):
        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    with TableReport(Gone()) as report:
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


# Reports that are not read, cannot be written, or are too long


def test_what_is_too_much_for_the_table_is_counted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_OUTPUT_LINES", 3)
    with TableReport(terminal) as report:
        report.pass_on(Event(1, "a", "running", "ls", output=tuple("12")))
        report.pass_on(Event(1, "a", "running", "ls", output=tuple("345")))
        report.show(Event(1, "a", "finished", "ls"))
    lines = terminal.getvalue()
    assert all(f"| {number}" in lines for number in "123")
    assert "| 4" not in lines
    assert "# ... 2 lines not shown" in lines
    assert "finished" in lines


def test_before_it_is_stopped_the_terminal_is_as_it_was_and_afterwards_there_is_a_new_table(terminal: Terminal) -> None:
    with TableReport(terminal) as report:
        report.suspend()
        assert terminal.getvalue().endswith("\x1b[?25h")
        terminal.truncate(0)
        report.resume()
        assert terminal.getvalue().lstrip("\0").startswith("\x1b[?25l\r\x1b[J")
    plain = PlainReport(io.StringIO())
    plain.suspend()
    plain.resume()


def test_a_table_that_has_become_narrower_is_drawn_over_the_rows_that_were_wrapped(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "40")
    with TableReport(terminal) as report:
        rows = report._rows
        monkeypatch.setenv("COLUMNS", "50")
        report._console._environ = dict(os.environ)
        report._console._width = 50
        terminal.truncate(0)
        report._draw()
        assert f"\x1b[{2 * rows}A\r\x1b[J" in terminal.getvalue()


def test_an_error_is_shown_above_the_table_unless_the_standard_error_is_elsewhere(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TableReport(terminal) as report:
        elsewhere = io.StringIO()
        monkeypatch.setattr(sys, "stderr", elsewhere)
    with TableReport(terminal) as report:
        report.error("elsewhere")
    assert elsewhere.getvalue() == "anysched: elsewhere\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    with TableReport(terminal) as report:
        report.error("one\ntwo")
    assert "anysched: one" in terminal.getvalue()
    assert "elsewhere" not in terminal.getvalue()


def test_what_the_library_logs_is_reported() -> None:
    told: list[str] = []
    logger = logging.getLogger("anysched.cli")
    with logs_to(told.append):
        logger.warning("slow: %s", "x")
        logger.info("not this")
    logger.warning("nor this")
    assert told == ["slow: x"]


def test_what_the_event_loop_logs_is_reported() -> None:
    told: list[str] = []
    with logs_to(told.append):
        logging.getLogger("asyncio").error("exception in a callback")
    assert told == ["exception in a callback"]


def test_a_terminal_in_the_background_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
        echo = EchoControl(stream)
        echo.disable()
        assert termios.tcgetattr(ours)[3] & termios.ECHOCTL
        monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp())
        echo.disable()
        assert not termios.tcgetattr(ours)[3] & termios.ECHOCTL
        echo.restore()
        echo.restore()
        assert termios.tcgetattr(ours)[3] & termios.ECHOCTL
    os.close(ours)


def test_in_the_background_there_are_lines_and_no_table(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    in_background = True
    monkeypatch.setattr(EchoControl, "is_in_background", lambda _: in_background)

    def drawn() -> str:
        terminal.seek(0)
        terminal.truncate()
        report._draw()
        return terminal.getvalue()

    with TableReport(terminal) as report:
        assert terminal.getvalue() == "\x1b[?25l\x1b[?25h"
        report.show(Event(1, "a", "running", "ls"))
        assert "a           running" in drawn()
        assert drawn() == ""  # what the shell shows is left alone
        in_background = False
        assert drawn().startswith("\x1b[?25l\r\x1b[J┏")
        in_background = True
        assert drawn() == "\x1b[?25h"


def test_streams_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    write_line(stream, "na\xefve")
    monkeypatch.setattr(sys, "stderr", stream)
    print_error("oh", timeout=0)
    assert stream.getvalue() == "na\xefve\nanysched: oh\n"


def test_a_line_is_written_wholly_to_a_stream_that_does_not_block(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = os.write
    answers: list[Exception | int] = [BlockingIOError(11, "again"), 1, BlockingIOError(11, "again"), 3]

    def refuse(descriptor: int, data: bytes) -> int:
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, Exception):
            raise answer
        return write(descriptor, data[:answer])

    monkeypatch.setattr(os, "write", refuse)
    with (tmp_path / "out").open("w") as stream:
        write_line(stream, "a line")
    assert (tmp_path / "out").read_text() == "a line\n"


def test_an_error_message_does_not_wait_for_a_reader_for_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        print_error("not read", timeout=0.01)
    os.close(ours)


def test_at_exit_a_stream_that_cannot_be_written_is_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115
    full.write("lost")
    monkeypatch.setattr(sys, "stdout", full)
    monkeypatch.setattr(sys, "stderr", None)
    leave_streams()
    full.close()  # and raises nothing
    leave_streams()


def test_process_1_also_ends_by_sigterm_before_the_schedule_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    try:
        prepare_process()
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught.value.code == 143


def test_after_the_reader_has_closed_a_pipe_nothing_is_written_and_nothing_is_lost() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as stream:
        writer = Writer(stream, str)
        for _ in range(2):
            writer.write("to nowhere\n")
            assert writer.flush(5)
            assert writer.is_broken
        writer.close(5)
        assert (writer.lost, writer.error) == (0, None)


def test_a_writer_that_hangs_at_the_end_counts_what_it_has_not_written() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as stream:
        writer = Writer(stream, str)
        writer.write("0123456789\n" * 20_000)
        writer.write("more\n")
        writer.close(0.05)
        assert 0 < writer.lost <= 20_001
        assert str(writer.error) == "it is not read"
        os.close(ours)


def test_lines_that_were_dropped_are_also_counted_if_nothing_says_so_in_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anysched._cli.writer.CAPACITY", 500_000)
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as stream:
        writer = Writer(stream, lambda count: f"{count} lines not shown\n")
        for _ in range(300):
            writer.write("0123456789\n" * 1_000, may_drop=True)
        writer.write("an event\n")
        writer.close(0.1)
        os.set_blocking(ours, False)
        read = os.read(ours, 1_000_000)
        assert writer.lost + read.count(b"\n") == 300_001
        os.close(ours)


def test_signals_that_leave_the_schedule_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    report = SimpleNamespace(suspend=lambda: done.append("suspend"), resume=lambda: done.append("resume"))
    monkeypatch.setattr(signal, "raise_signal", lambda number: done.append(str(signal.getsignal(number))))
    actions = state_actions(cast("Report", report), list)
    for is_broken in (True, False):
        report.is_broken = is_broken
        assert actions[signal.SIGPIPE]() is is_broken
    handler = signal.getsignal(signal.SIGTSTP)
    assert actions[signal.SIGTSTP]() is False
    assert done == ["suspend", str(signal.SIG_DFL), "resume"]
    assert signal.getsignal(signal.SIGTSTP) is handler


def test_the_state_of_what_is_just_being_started() -> None:
    running, starting = Event(1, "a", "running", "ls"), Event(2, "b", "pending", "ls")
    lines = state_lines([(running, NOW), (starting, None), (Event(3, "c", "pending", "ls", NOW), None)], TimeFormat())
    assert lines[0] == "2 running, 1 pending"
    assert state_lines([(Event(3, "c", "pending", "ls", NOW), None)], TimeFormat())[0] == "1 pending"
    assert state_lines([], TimeFormat()) == ["nothing is running or pending"]
    assert lines[2].startswith("  b           running since ")
    assert lines[3] == f"  c           due {SHOWN_NOW}: ls"
