"""`anysched.cron.Cron`: its values, its errors, and its times compared with a minute-by-minute model of cron."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from cron_reference import EPOCH, EXPRESSIONS, MINUTE, Clock, changes, month_of, wall_minutes, zone_file
from cronsim import CronSim
from dateutil.tz import gettz
from hypothesis import given
from hypothesis import strategies as st

from anysched.cron import NAMES, Cron

PARIS = ZoneInfo("Europe/Paris")
YEAR = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def first(cron: Cron, now: datetime, count: int = 3) -> list[str]:
    return [time.isoformat(timespec="minutes") for time in islice(cron(now), count)]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


# The value


def test_it_is_a_value() -> None:
    cron = Cron("30 2 * * *", "Europe/Paris")
    assert (cron.expression, cron.timezone) == ("30 2 * * *", PARIS)
    assert repr(cron) == "Cron('30 2 * * *', 'Europe/Paris')"
    same = Cron(" 30\t2 * * * ", PARIS)
    assert cron == same
    assert len({cron, same, Cron("30 2 * * *"), Cron("30 3 * * *", PARIS)}) == 3
    assert pickle.loads(pickle.dumps(cron)) == cron
    with pytest.raises(AttributeError):
        cron.expression = "* * * * *"  # type: ignore[misc]


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", UTC, ZoneInfo("UTC")])
def test_utc_is_one_zone_and_the_default(zone: str | tzinfo) -> None:
    assert Cron("@daily", zone) == Cron("@daily")
    assert repr(Cron("@daily", zone)) == "Cron('@daily', 'UTC')"


def test_an_uncached_zone_is_that_of_its_name() -> None:
    assert Cron("@daily", ZoneInfo.no_cache("Europe/Paris")) == Cron("@daily", "Europe/Paris")


def test_a_zone_without_a_name_and_one_with_a_fixed_offset() -> None:
    with zone_file("Europe/Paris").open("rb") as file:
        zone = ZoneInfo.from_file(file)
    now = utc(2025, 7, 1)
    assert first(Cron("0 12 * * *", zone), now, 1) == ["2025-07-01T12:00+02:00"]
    fixed = timezone(timedelta(hours=5, minutes=30))
    assert first(Cron("0 12 * * *", fixed), now, 1) == ["2025-07-01T12:00+05:30"]


# Errors


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("60 * * * *", r"bad minute in '60 \* \* \* \*'$"),
        ("", r"expected five fields or a name such as @daily, not 0 fields: ''$"),
        ("* * * *", "not 4 fields"),
        ("0 * * * * *", "not 6 fields"),
        ("0 0 31 2 *", "bad day-of-month in"),
        ("9" * 5000 + " * * * *", "a number is too long in '9{80}'$"),
        ("@reboot", "unknown name '@reboot': the names are @yearly, "),
        ("@Daily", "unknown name"),
        ("0 0 * * sat-sun", "bad day-of-week in .*, write 6-7 instead of sat-sun$"),
        ("0 0 * * MON-0", "write 1-7 instead of mon-0$"),
        ("0 0 * * 1,5-sun", "write 5-7 instead of 5-sun$"),
        ("0 0 * * fri-mon", r"bad day-of-week in '0 0 \* \* fri-mon'$"),
    ],
)
def test_a_bad_expression_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cron(expression)


@pytest.mark.parametrize("zone", ["", ".", "Europe", "Europe/Nowhere", "/etc/localtime", "a\0b", "x" * 300, "\udcff"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone"):
        Cron("@daily", zone)


def test_arguments_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="expression must be a string, not int: 5"):
        Cron(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expression must be a string, not bytes"):
        Cron(b"* * * * *")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"timezone must be a name such as 'Europe/Paris', .*, not NoneType: None"):
        Cron("@daily", None)  # type: ignore[arg-type]
    zone = gettz("Europe/Paris")
    assert zone is not None
    with pytest.raises(TypeError, match="timezone must be"):
        Cron("@daily", zone)


def test_the_present_must_be_an_aware_datetime_and_is_checked_at_once() -> None:
    cron = Cron("@daily")
    with pytest.raises(ValueError, match="now must be aware"):
        cron(datetime(2025, 1, 1))
    with pytest.raises(TypeError, match="now must be a datetime, not str: 'today'"):
        cron("today")  # type: ignore[arg-type]


def test_without_cronsim_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['cronsim'] = None; import anysched.cron"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: anysched.cron needs cronsim: pip install 'anysched[cron]'" in run.stderr


def test_it_imports_cronsim_and_the_standard_library_only() -> None:
    program = (
        "import sys; import anysched.cron; print(any(name in sys.modules for name in ('rich', 'trio', 'asyncio')))"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


# Times


def test_the_times_are_after_now_aware_and_in_the_zone() -> None:
    noon = utc(2025, 6, 1, 10)
    assert first(Cron("0 12 * * *", PARIS), noon, 1) == ["2025-06-02T12:00+02:00"]
    assert first(Cron("0 12 * * *", PARIS), noon - timedelta(microseconds=1), 1) == ["2025-06-01T12:00+02:00"]
    assert first(Cron("0 12 * * *", PARIS), noon.astimezone(ZoneInfo("Asia/Tokyo")), 1) == ["2025-06-02T12:00+02:00"]
    time = next(Cron("0 12 * * *", PARIS)(noon))
    assert time.tzinfo is PARIS


def test_a_name_is_five_fields() -> None:
    for name, fields in NAMES.items():
        assert first(Cron(name, PARIS), YEAR[0]) == first(Cron(fields, PARIS), YEAR[0])


def test_the_two_nights_of_half_past_two() -> None:
    cron = Cron("30 2 * * *", "Europe/Paris")
    assert first(cron, utc(2025, 3, 29, 12), 2) == ["2025-03-30T03:00+02:00", "2025-03-31T02:30+02:00"]
    assert first(cron, utc(2025, 10, 25, 12), 2) == ["2025-10-26T02:30+02:00", "2025-10-27T02:30+01:00"]
    often = Cron("*/30 2 * * *", "Europe/Paris")
    assert first(often, utc(2025, 3, 29, 12), 2) == ["2025-03-31T02:00+02:00", "2025-03-31T02:30+02:00"]
    assert first(often, utc(2025, 10, 25, 12), 5) == [
        "2025-10-26T02:00+02:00", "2025-10-26T02:30+02:00", "2025-10-26T02:00+01:00", "2025-10-26T02:30+01:00",
        "2025-10-27T02:00+01:00",
    ]  # fmt: skip


def test_asked_at_the_first_occurrence_of_an_hour_the_second_one_is_still_to_come() -> None:
    often = Cron("*/30 2 * * *", "Europe/Paris")
    assert first(often, datetime(2025, 10, 26, 2, 45, tzinfo=PARIS), 2) == [
        "2025-10-26T02:00+01:00",
        "2025-10-26T02:30+01:00",
    ]
    assert first(often, datetime(2025, 10, 26, 2, 10, tzinfo=PARIS, fold=1), 1) == ["2025-10-26T02:30+01:00"]
    once = Cron("30 2 * * *", "Europe/Paris")
    assert first(once, datetime(2025, 10, 26, 2, 10, tzinfo=PARIS, fold=1), 1) == ["2025-10-27T02:30+01:00"]


def test_clocks_that_change_by_half_an_hour_or_in_the_middle_of_an_hour() -> None:
    """cronsim itself misses noon, and an hour."""
    noon = Cron("0 */12 * * *", "Australia/Lord_Howe")
    assert first(noon, utc(2025, 4, 5, 12), 2) == ["2025-04-06T00:00+11:00", "2025-04-06T12:00+10:30"]
    hourly = Cron("45 * * * *", "Pacific/Chatham")
    assert first(hourly, utc(2025, 9, 27, 12), 3) == [
        "2025-09-28T01:45+12:45", "2025-09-28T03:45+13:45", "2025-09-28T04:45+13:45",
    ]  # fmt: skip


def test_never_and_the_end_of_all_years() -> None:
    assert list(Cron("0 0 */31 * 1#2")(YEAR[0])) == []  # on the first, if that is the second Monday
    assert len(list(Cron("@daily")(utc(9999, 12, 30)))) == 1
    assert len(list(Cron("@daily", "Europe/Paris")(utc(9999, 12, 30)))) == 1
    assert list(Cron("@daily", "Europe/Paris")(datetime.max.replace(tzinfo=UTC))) == []


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(["Europe/Paris", "Australia/Lord_Howe", "Pacific/Chatham", "America/Havana", "Antarctica/Troll"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)),
)
def test_the_times_do_not_depend_on_when_it_was_asked(
    expression: str, zone: str, before: datetime, after: datetime
) -> None:
    before, after = sorted((before.replace(tzinfo=UTC), after.replace(tzinfo=UTC)))
    before = max(before, after - timedelta(days=3))
    cron = Cron(expression, zone)
    early = (time for time in cron(before) if time.astimezone(UTC) > after)
    assert list(islice(early, 4)) == list(islice(cron(after), 4))


@given(
    st.sampled_from(["* * * * *", *EXPRESSIONS]),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)),
)
def test_where_clocks_do_not_change_the_times_are_those_of_cronsim(expression: str, start: datetime) -> None:
    now = start.replace(tzinfo=UTC)
    assert list(islice(Cron(expression)(now), 5)) == list(islice(CronSim(expression, now), 5))


# The reference


def check(zone: tzinfo, start: datetime, end: datetime, walls: dict[str, list[int]]) -> int:
    """Compare all times of a zone with those of the reference, and return how many there were."""
    clock = Clock(zone, start - timedelta(days=1), end)
    count = 0
    for expression, minutes in walls.items():
        begin = (start.replace(tzinfo=None) - EPOCH) // MINUTE
        expected = [time for time in clock.times(expression, minutes) if time > begin]
        times = (time.astimezone(UTC) for time in Cron(expression, zone)(start))
        found = [(time.replace(tzinfo=None) - EPOCH) / MINUTE for time in takewhile(lambda time: time < end, times)]
        assert found == expected, (zone, expression)
        count += len(found)
    return count


def walls_of(start: datetime, end: datetime) -> dict[str, list[int]]:
    begin, stop = ((time.replace(tzinfo=None) + timedelta(days=days)) for time, days in ((start, -3), (end, 3)))
    return {expression: list(wall_minutes(expression, begin, stop)) for expression in EXPRESSIONS}


@pytest.mark.parametrize(
    ("zone", "year", "month"),
    [
        ("Europe/Paris", 2025, 3), ("Europe/Paris", 2025, 10), ("America/New_York", 2025, 11),
        ("Australia/Lord_Howe", 2025, 4), ("Australia/Lord_Howe", 2025, 10),  # half an hour
        ("Pacific/Chatham", 2025, 4), ("Pacific/Chatham", 2025, 9),  # at a quarter to
        ("Antarctica/Troll", 2025, 3), ("Antarctica/Troll", 2025, 10),  # two hours
        ("Antarctica/Casey", 2018, 3), ("Antarctica/Casey", 2018, 10),  # three hours
        ("America/Havana", 2025, 3), ("America/Havana", 2025, 11),  # at midnight, and to midnight
        ("Pacific/Apia", 2011, 12), ("Pacific/Kwajalein", 1993, 8),  # a day that was left out
        ("Pacific/Kwajalein", 1969, 10),  # a day that was repeated
        ("Asia/Pyongyang", 2015, 8), ("Asia/Pyongyang", 2018, 5), ("America/Caracas", 2007, 12),
    ],
)  # fmt: skip
def test_where_clocks_are_changed_it_agrees_with_cron(zone: str, year: int, month: int) -> None:
    start, end = month_of(year, month)
    (_, *found) = changes(ZoneInfo(zone), start, end)
    time = found[0][0] if found else start + timedelta(days=3)
    start, end = time - timedelta(days=2), time + timedelta(days=2)
    assert check(ZoneInfo(zone), start, end, walls_of(start, end)) > 2_000


def zones() -> list[ZoneInfo]:
    """Return the zones of the database whose clocks differ in the year."""
    found = {changes(zone, *YEAR): zone for zone in map(ZoneInfo, sorted(zoneinfo.available_timezones()))}
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_a_year_in_all_zones_agrees_with_cron(part: int, request: pytest.FixtureRequest) -> None:
    """With ``--all-zones``, which takes minutes; without it, in one zone."""
    if not request.config.getoption("--all-zones") and part:
        pytest.skip("needs --all-zones")
    chosen = zones()[part::8] if request.config.getoption("--all-zones") else [ZoneInfo("Australia/Lord_Howe")]
    walls = walls_of(*YEAR)
    assert sum(check(zone, *YEAR, walls) for zone in chosen) > 200_000 * len(chosen)
