"""When the lines of a crontab are due, in which zone, and the print of it."""

from __future__ import annotations

import json
import zoneinfo
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from anysched._cli.crontab import zones
from anysched._cli.crontab.preview import json_run, preview, text_run
from anysched._cli.crontab.syntax import parse_crontab
from anysched._cli.crontab.times import NAMES, run_times
from anysched._cli.crontab.zones import local_zone, named_zone

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2025, 1, 1, tzinfo=UTC)


def first(expression: str, zone: ZoneInfo, after: datetime, count: int = 3) -> list[str]:
    return [time.isoformat(timespec="minutes") for time in islice(run_times(expression, zone, after), count)]


def test_a_name_is_five_fields() -> None:
    for name, fields in NAMES.items():
        assert list(islice(run_times(name, UTC, START), 3)) == list(islice(CronSim(fields, START), 3))


def test_the_start_is_no_time() -> None:
    assert list(run_times("@reboot", UTC, START)) == []


def test_where_clocks_are_changed_cronsim_says_when() -> None:
    spring = datetime(2025, 3, 29, 12, tzinfo=UTC)
    assert first("30 2 * * *", PARIS, spring) == [
        "2025-03-30T03:00+02:00",
        "2025-03-31T02:30+02:00",
        "2025-04-01T02:30+02:00",
    ]
    autumn = datetime(2025, 10, 25, 12, tzinfo=UTC)
    assert first("30 2 * * *", PARIS, autumn, 2) == ["2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"]
    assert first("*/30 2 * * *", PARIS, autumn, 4) == ["2025-10-26T02:00+02:00", "2025-10-26T02:30+02:00", "2025-10-26T02:00+01:00", "2025-10-26T02:30+01:00"]  # fmt: skip


def test_in_the_second_of_two_equal_hours_nothing_of_the_first_one_is_due() -> None:
    second = datetime(2025, 10, 26, 2, 10, tzinfo=PARIS, fold=1)
    assert first("30 2 * * *", PARIS, second, 1) == ["2025-10-27T02:30+01:00"]


@given(
    st.sampled_from(
        ["* * * * *", "17 3 * * *", "30 2 * * 7", "0,30 1-3 * * *", "*/20 2 * 3,10 *", "@hourly", "5 */3 31 * *"]
    ),
    st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)),
)
def test_the_times_are_those_that_cronsim_lists_after_the_start(expression: str, name: str, start: datetime) -> None:
    zone = named_zone(name)
    after = start.replace(tzinfo=UTC)
    found = list(islice(run_times(expression, zone, after), 5))
    assert all(time > after for time in found)
    listed = CronSim(NAMES.get(expression, expression), after.astimezone(zone))
    assert found == list(islice((time for time in listed if time.astimezone(UTC) > after), 5))
    assert [time.utcoffset() for time in found] == [time.astimezone(zone).utcoffset() for time in found]


def test_never() -> None:
    assert list(run_times("0 0 */31 * 1#2", UTC, START)) == []  # on the first, if that is the second Monday


def test_the_end_of_all_times() -> None:
    end = datetime(9999, 12, 30, tzinfo=UTC)
    assert len(list(run_times("@daily", UTC, end))) == 1


# Zones


@pytest.mark.parametrize("name", ["", ".", "Europe", "Europe/Nowhere", "/etc/localtime", "a\0b", "x" * 300, "\udcff"])
def test_what_names_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone"):
        named_zone(name)


@pytest.mark.parametrize("name", ["UTC", "Etc/UTC"])
def test_utc(name: str) -> None:
    assert named_zone(name) is UTC


@pytest.mark.parametrize(
    ("value", "zone"),
    [("Europe/Paris", PARIS), (":Europe/Paris", PARIS), ("", UTC), (":", UTC), ("UTC", UTC)],
)
def test_the_variable_names_the_zone_of_the_machine(value: str, zone: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", value)
    assert local_zone() == (zone, "")


def database(directory: Path) -> Path:
    """A file with the data of a zone, in the manner of the system's database."""
    places = [Path(place) for place in zoneinfo.TZPATH]
    with suppress(ImportError):
        places.append(Path(str(resources.files("tzdata"))) / "zoneinfo")
    data = next(file for place in places if (file := place / "Europe" / "Paris").is_file()).read_bytes()
    file = directory / "zoneinfo" / "Europe" / "Paris"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return file


def test_without_it_the_link_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(zones, "LOCALTIME", str(tmp_path / "localtime"))
    (tmp_path / "localtime").symlink_to(database(tmp_path))
    assert local_zone() == (PARIS, "")


def test_a_file_that_is_no_link_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = database(tmp_path).rename(tmp_path / "localtime")
    monkeypatch.setenv("TZ", str(copy))
    zone, note = local_zone()
    assert note == ""
    summer, winter = datetime(2025, 7, 1, tzinfo=zone), datetime(2025, 1, 1, tzinfo=zone)
    assert (summer.utcoffset(), winter.utcoffset()) == (timedelta(hours=2), timedelta(hours=1))


def test_a_zone_that_cannot_be_found_is_utc_and_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    zone, note = local_zone()
    assert zone is UTC
    assert "(TZ=CET-1CEST,M3.5.0,M10.5.0/3 names no readable zone): times are in UTC; --zone NAME" in note
    monkeypatch.delenv("TZ")
    monkeypatch.setattr(zones, "LOCALTIME", str(tmp_path / "localtime"))
    assert local_zone()[0] is UTC
    (tmp_path / "localtime").write_bytes(b"no zone")
    zone, note = local_zone()
    assert zone is UTC
    assert f"({tmp_path}/localtime names no readable" in note


# The print of what is to come


def test_the_runs_of_all_lines_in_order() -> None:
    crontab = parse_crontab(
        b"0 6,18 * * * half\nCRON_TZ=Europe/Paris\n0 7 * * * paris\n@reboot once\n@yearly never", UTC
    )
    runs = list(preview(crontab.lines, START, START + timedelta(days=1, hours=6)))
    assert [text_run(run) for run in runs] == [
        "at the start            line-4      once",
        "2025-01-01T06:00+00:00  line-1      half",
        "2025-01-01T07:00+01:00  line-3      paris",  # the same moment, the later line
        "2025-01-01T18:00+00:00  line-1      half",
        "2025-01-02T06:00+00:00  line-1      half",  # the last moment is one, too
        "2025-01-02T07:00+01:00  line-3      paris",
    ]
    assert [json.loads(json_run(run)) for run in runs[:3:2]] == [
        {"time": None, "job": "line-4", "line": 4, "schedule": "@reboot", "command": "once"},
        {"time": "2025-01-01T06:00:00.000Z", "job": "line-3", "line": 3, "schedule": "0 7 * * *", "command": "paris"},
    ]


def test_the_order_is_that_of_the_moments_where_clocks_are_set_back() -> None:
    crontab = parse_crontab(b"*/30 2 * * * a\n*/30 * * * * b", PARIS)
    begin = datetime(2025, 10, 25, 23, 59, tzinfo=UTC)
    runs = [run[0] for run in preview(crontab.lines, begin, begin + timedelta(hours=3))]
    moments = [time.astimezone(UTC) for time in runs if time]
    assert len(moments) == 10
    assert moments == sorted(moments)
