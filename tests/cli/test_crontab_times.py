"""When the lines of a crontab are due, in which zone, and the preview."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cron_reference import zone_file

from anysched._cli.crontab import zones
from anysched._cli.crontab.preview import json_run, preview, text_run
from anysched._cli.crontab.syntax import parse_crontab
from anysched._cli.crontab.times import run_times
from anysched._cli.crontab.zones import local_zone, named_zone
from anysched.cron import Cron

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2025, 1, 1, tzinfo=UTC)


def test_the_times_of_a_line_are_those_of_its_expression_in_its_zone() -> None:
    for expression in ("30 2 * * *", "@hourly"):
        assert list(islice(run_times(expression, PARIS, START), 5)) == list(islice(Cron(expression, PARIS)(START), 5))


def test_the_start_is_not_a_time() -> None:
    assert list(run_times("@reboot", UTC, START)) == []


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
    """A file with the data of a zone, as in the system's database."""
    file = directory / "zoneinfo" / "Europe" / "Paris"
    file.parent.mkdir(parents=True)
    file.write_bytes(zone_file("Europe/Paris").read_bytes())
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


# The preview


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
        "2025-01-02T06:00+00:00  line-1      half",  # the last moment is included
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
