"""The syntax of a crontab, and every way in which a line may be invalid."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given
from hypothesis import strategies as st

from anysched._cli import lines as lines_module
from anysched._cli.crontab.syntax import CronLine, Crontab, Problem, parse_crontab
from anysched._cli.crontab.warnings import is_user, warnings


def parse(text: str, users: set[str] | None = None) -> Crontab:
    return parse_crontab(text.encode(), UTC, users.__contains__ if users else None)


def only(text: str) -> CronLine:
    crontab = parse(text)
    assert crontab.problems == ()
    (line,) = crontab.lines
    return line


def problem(text: str, users: set[str] | None = None) -> str:
    crontab = parse(text, users)
    assert crontab.lines == ()
    (wrong,) = crontab.problems
    return wrong.reason


def test_lines_have_their_numbers_whatever_stands_between_them() -> None:
    crontab = parse("# comment\n\n0 1 * * * one\n  \t\n\t# comment\n \t @daily  two  words \n@reboot three")
    assert crontab.lines == (
        CronLine(3, "0 1 * * *", UTC, "one", "", ()),
        CronLine(6, "@daily", UTC, "two  words ", "", ()),
        CronLine(7, "@reboot", UTC, "three", "", ()),
    )
    assert [line.number for line in crontab.lines] == [3, 6, 7]
    assert [line.name for line in crontab.lines] == ["line-3", "line-6", "line-7"]
    assert crontab.problems == ()


def test_an_empty_crontab() -> None:
    assert parse("") == parse("\n\n# nothing\n") == Crontab((), ())


@pytest.mark.parametrize(
    "schedule",
    ["* * * * *", "0-59/5,7 1,2-3 31 */2 0,7", "5/10 * * jan,FEB mon-Fri", "00 09 * * 5#2", "0 0 L * *", "0 0 * * 7"],
)
def test_fields_that_cronsim_understands(schedule: str) -> None:
    assert only(schedule.replace(" ", " \t ") + "\tdo").schedule == schedule


@pytest.mark.parametrize(
    "name", ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]
)
def test_names(name: str) -> None:
    assert only(f"{name} do").schedule == name


def test_a_comment_after_a_command_belongs_to_the_command() -> None:
    assert only("@daily do # it").command == "do # it"


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("A=b", "A", "b"),
        ("  A  =  b c  ", "A", "b c"),
        ("A='  b '", "A", "  b "),
        ('A="it\'s"', "A", "it's"),
        ("A=it's", "A", "it's"),
        ('A=b "c"', "A", 'b "c"'),
        ('MAILTO=""', "MAILTO", ""),
        ("MAILTO=", "MAILTO", ""),
        ("A==b=c", "A", "=b=c"),
        ('"A"="c" ', "A", "c"),
        ("A=$HOME/%x\\%#", "A", "$HOME/%x\\%#"),
    ],
)
def test_an_assignment(assignment: str, name: str, value: str) -> None:
    assert only(f"{assignment}\n@daily do").environment == ((name, value),)


def test_an_assignment_holds_for_the_lines_after_it() -> None:
    crontab = parse("@daily a\nA=1\n@daily b\nB=2\nA=3\n@daily c")
    assert [dict(line.environment) for line in crontab.lines] == [{}, {"A": "1"}, {"A": "3", "B": "2"}]


def test_a_zone_holds_for_the_lines_after_it_until_it_is_taken_back() -> None:
    crontab = parse("@daily a\nCRON_TZ=Europe/Paris\n@daily b\nCRON_TZ = 'Asia/Tokyo'\n@daily c\nCRON_TZ=\n@daily d")
    zones = [UTC, ZoneInfo("Europe/Paris"), ZoneInfo("Asia/Tokyo"), UTC]
    assert [line.zone for line in crontab.lines] == zones
    assert dict(crontab.lines[1].environment) == {"CRON_TZ": "Europe/Paris"}


def test_no_line_runs_in_a_zone_that_was_not_meant() -> None:
    crontab = parse("@daily a\nCRON_TZ=Mars/Base\n@daily b\nA=1\nCRON_TZ=UTC\n@daily c")
    assert [line.command for line in crontab.lines] == ["a", "c"]
    assert [(wrong.number, wrong.reason[:26]) for wrong in crontab.problems] == [
        (2, "unknown time zone 'Mars/Ba"),
        (3, "it means the time zone of "),
    ]


@pytest.mark.parametrize(
    ("text", "command", "stdin"),
    [
        ("do", "do", ""),
        ("do%", "do", ""),
        ("do %in", "do ", "in\n"),
        ("do%one%two", "do", "one\ntwo\n"),
        ("do%one%two%", "do", "one\ntwo\n"),
        ("do%%%", "do", "\n\n"),
        (r"date +\%F", "date +%F", ""),
        (r"do \%%in\%", "do %", "in%\n"),
        (r"do \n \\n", r"do \n \\n", ""),
        (r"do \\%in", r"do \\", "in\n"),  # the first backslash covers the second
        (r"do \\\%", r"do \\%", ""),
        (r"do%a\\%b\x", "do", "a\\%b\\x\n"),  # but not here
        ("do\\", "do\\", ""),
        ("do%in\\", "do", "in\\\n"),
        ("%in", "", "in\n"),
    ],
)
def test_the_percent_sign(text: str, command: str, stdin: str) -> None:
    line = only(f"@daily {text}")
    assert (line.command, line.stdin) == (command, stdin)


def test_a_system_crontab_has_a_column_for_the_user() -> None:
    crontab = parse("0 1 * * * me do it\n@daily\tme\tdo it", {"me"})
    assert [line.command for line in crontab.lines] == ["do it", "do it"]
    assert problem("@daily you do it", {"me"}) == "it must run as 'you', and this process runs as another user"
    assert problem("@daily me", {"me"}) == "it has no command"
    assert problem("0 1 * * * ", {"me"}) == "neither a user nor a command"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "neither an assignment nor five fields and a command: 'hello'"),
        ("0 1 * *", "neither an assignment nor five fields and a command: '0 1 * *'"),
        ("0 1 * * *", "it has no command"),
        ("@daily ", "it has no command"),
        ("60 * * * * do", "bad minute in '60 * * * *'"),
        ("* * * 0 * do", "bad month in '* * * 0 *'"),
        ("* * * * fri-mon do", "bad day-of-week in '* * * * fri-mon'"),
        ("0 0 31 2 * do", "bad day-of-month in '0 0 31 2 *'"),
        (f"* * {'5' * 5000} * * do", "a number is too long in '* * 55"),
        ("@Daily do", "unknown name '@Daily': the names are @yearly, @annually, "),
        (
            "@every 5m do",
            "unknown name '@every': the names are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot",
        ),
        ("A='b", "the quote ' is not closed"),
        ("'A B'=c", "not a name of a variable, which has letters, digits and underscores: 'A B'"),
        ("A-b.c=d", "not a name of a variable"),
        ("@daily=x", "not a name of a variable"),
        ("Ä=x", "not a name of a variable"),
        ("1A=x", "not a name of a variable"),
        (
            "0 1 * * /bin/backup now",
            "bad day-of-week in '0 1 * * /bin/backup': only four fields come before the command '/bin/backup'",
        ),
        ("0 1 * * backup now", "bad day-of-week in '0 1 * * backup': only four fields"),
        (
            "* * * * sat-sun do",
            "bad day-of-week in '* * * * sat-sun': a range must not end before it begins, write 6-7",
        ),
        ("# one\n\ufeffA=b", "it begins with a byte-order mark"),
        ("A=\"b'", 'the quote " is not closed'),
        ("A='b' c", "something follows the value in quotes: ' c'"),
        ("A B=c", "neither an assignment nor five fields and a command: 'A B=c'"),
        ("'A=B'=c", "neither an assignment nor five fields and a command: \"'A=B'=c\""),
        ("=c", "neither an assignment nor five fields and a command: '=c'"),
        ("CRON_TZ=../x", "unknown time zone '../x'"),
        ("@daily do\r", "it ends with a carriage return"),
        ("@daily do \0", "it has a NUL in it"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(text: str, reason: str) -> None:
    said = problem(text)
    assert said.startswith(reason)
    assert len(said) < 300
    assert "\n" not in said


def test_all_wrong_lines_are_found_and_the_others_are_there() -> None:
    crontab = parse("what\n@daily one\n* * * * 9 two\nA=1\n@daily three")
    assert [line.command for line in crontab.lines] == ["one", "three"]
    assert [wrong.number for wrong in crontab.problems] == [1, 3]


def test_bytes_that_are_no_text_reach_the_command_as_they_are() -> None:
    (line,) = parse_crontab(b"@daily echo \xff \xc3\xa4%\xfe", UTC).lines
    assert line.command.encode("utf-8", "surrogateescape") == b"echo \xff \xc3\xa4"
    assert line.stdin.encode("utf-8", "surrogateescape") == b"\xfe\n"


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)


@given(WORDS.map(lambda text: "x" + text.replace("\\", "") + "x"), WORDS.map(lambda text: text.replace("\\", "")))
def test_what_is_escaped_comes_out_as_it_was(command: str, stdin: str) -> None:
    line = only("@daily " + command.replace("%", r"\%") + "%" + stdin.replace("%", r"\%"))
    assert line.command == command
    assert line.stdin == (stdin + "\n" if stdin else "")


@given(WORDS, st.sampled_from("'\""), st.sampled_from([0, 1, 3]))
def test_a_value_in_quotes_comes_out_as_it_was(value: str, quote: str, blanks: int) -> None:
    value = value.replace(quote, "")
    blank = " " * blanks
    text = f"NAME{blank}={blank}{quote}{value}{quote}{blank}\n@daily do"
    assert only(text).environment == (("NAME", value),)


LINES = st.lists(
    st.one_of(
        st.sampled_from(["@daily a", "0 5 * * 1 b%c", "A=1", "B='2'", "CRON_TZ=Asia/Tokyo", "wrong", "60 * * * * c"]),
        st.text(st.sampled_from("*/-,0159 @%\\='\"#aLmon\t"), max_size=20),
    ),
    max_size=8,
)


@given(LINES, LINES)
def test_comments_and_blank_lines_change_nothing_but_the_numbers(lines: list[str], more: list[str]) -> None:
    plain = parse("\n".join(lines))
    places = iter(more)
    spread = parse("\n".join(part for line in lines for part in (f"  # {next(places, '')}", "", line, " \t")))
    assert spread.lines == plain.lines
    assert [line.number for line in spread.lines] == [4 * line.number - 1 for line in plain.lines]
    assert spread.problems == tuple(Problem(4 * wrong.number - 1, wrong.reason) for wrong in plain.problems)


@given(st.binary(max_size=200) | LINES.map(lambda lines: "\n".join(lines).encode()), st.booleans())
def test_whatever_stands_in_it_each_line_is_a_command_or_wrong_or_nothing(data: bytes, system: bool) -> None:
    crontab = parse_crontab(data, UTC, (lambda _: True) if system else None)
    numbers = sorted([*(line.number for line in crontab.lines), *(problem.number for problem in crontab.problems)])
    assert len(set(numbers)) == len(numbers)
    assert all(1 <= number <= data.count(b"\n") + 1 for number in numbers)


@given(st.lists(st.text(st.sampled_from("*/-,#L0123567monsunjan"), min_size=1, max_size=6), min_size=5, max_size=5))
def test_of_five_fields_those_are_taken_that_cronsim_understands(fields: list[str]) -> None:
    expression = " ".join(fields)
    if expression.startswith("#"):
        return
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        _, found, advice = problem(f"{expression} do").partition(f" in {expression!r}")
        assert found
        assert advice == "" or advice.startswith(": ")
    else:
        assert only(f"{expression} do").schedule == expression


def test_a_byte_order_mark_at_the_start_of_the_file_is_dropped() -> None:
    """Otherwise it would become part of the assigned name, and the lines below would run in another zone."""
    (line,) = parse_crontab(b"\xef\xbb\xbfCRON_TZ=Europe/Paris\n@daily do", UTC).lines
    assert line.zone == ZoneInfo("Europe/Paris")
    assert dict(line.environment) == {"CRON_TZ": "Europe/Paris"}


def test_a_byte_order_mark_elsewhere_is_refused_unless_it_is_in_a_command() -> None:
    crontab = parse_crontab(b"A=1\n \xef\xbb\xbfCRON_TZ=Europe/Paris\n@daily printf '\xef\xbb\xbf'", UTC)
    assert crontab.problems == (Problem(2, "it begins with a byte-order mark"),)
    assert [line.command for line in crontab.lines] == ["printf '\ufeff'"]


def test_a_line_that_is_too_long_is_wrong_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_LIMIT", 20)
    crontab = parse("@daily one\n@daily " + "x" * 20 + "\n@daily two")
    assert [line.command for line in crontab.lines] == ["one", "two"]
    assert crontab.problems == (Problem(2, "it is longer than 1,048,576 bytes"),)


# Suspicious lines


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 0 * * * * do", "the command begins with '*', which looks like a sixth field"),
        ("*/5 * * * * 2030 do", "the command begins with '2030', which looks like"),
        ("0 0 1 1 * */2 do", "the command begins with '*/2', which"),
        ("0 0 1 1 * mon-fri do", "the command begins with 'mon-fri', which"),
        ("0 0 * * * ? do", "the command begins with '?', which"),
        ("0 0 * * *\t*\tdo", "the command begins with '*', which"),
        ("0 0 12 * * MON do", "the command begins with 'MON', which"),
        ("0 0 12 * * sat,sun do", "the command begins with 'sat,sun', which"),
        ("0 0 12 * * L do", "the command begins with 'L', which"),
        ("0 0 12 * * 5L do", "the command begins with '5L', which"),
        ("0 0 12 * * 5#2 do", "the command begins with '5#2', which"),
        ("@daily\troot\tdo", "the command begins with 'root', the name of a user: is --system missing?"),
        ("@daily root do", "the command begins with 'root', the name of a user: is --system missing?"),
        ("@daily tar czf $(date +%F).tgz .", "the command ends before the first %, as in `date +`: write \\% for a %"),
    ],
)
def test_a_suspicious_line_is_told(text: str, reason: str) -> None:
    (found,) = warnings([only(text)], has_user=False, is_user={"root"}.__contains__)
    assert found.number == 1
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "@daily do it",
        "@daily root",
        "@daily 7z x",
        "@daily ./5",
        r"@daily date +\%F",
        "@daily do%in",
        "@daily cat%date +%",
        "@daily date; echo +%",
        "@daily %in",
    ],
)
def test_others_are_not(text: str) -> None:
    assert list(warnings([only(text)], has_user=False, is_user={"root"}.__contains__)) == []


def test_with_a_column_for_the_user_a_name_is_a_command() -> None:
    assert list(warnings([only("@daily root do")], has_user=True, is_user={"root"}.__contains__)) == []


def test_a_user_is_one_unless_there_is_a_program_of_this_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_user("root")
    assert not is_user("no-such-user-here")
    assert not is_user("a\0b")
    (tmp_path / "root").touch(0o755)
    assert not is_user("root")
