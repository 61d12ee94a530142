"""The syntax of a line of a schedule, and every way in which it may be malformed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from anysched._cli.entries import CancelEntry, MalformedLineError, RunEntry, parse_line

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({"id": "a", "run": ["ls"]}, RunEntry("a", 0, ("ls",))),
        ({"id": 7, "in": 1, "run": ["ls", "-l"]}, RunEntry(7, 1, ("ls", "-l"))),
        ({"id": "", "in": 0.25, "run": [""]}, RunEntry("", 0.25, ("",))),
        ({"id": -1, "in": -3, "run": ["ls"]}, RunEntry(-1, -3, ("ls",))),
        ({"id": 7, "at": "2030-01-01T12:00:00Z", "run": ["ls"]}, RunEntry(7, NOON, ("ls",))),
        ({"id": 7, "at": "2030-01-01T12:00:00", "run": ["ls"]}, RunEntry(7, NOON, ("ls",))),
        ({"id": 7, "at": "2030-01-01T14:00:00+02:00", "run": ["ls"]}, RunEntry(7, NOON, ("ls",))),
        ({"cancel": "a"}, CancelEntry("a")),
        ({"cancel": 7}, CancelEntry(7)),
    ],
)
def test_a_well_formed_line(fields: object, entry: object) -> None:
    parsed = parse_line(json.dumps(fields).encode())
    assert parsed == entry
    if isinstance(parsed, RunEntry) and isinstance(parsed.due, datetime):
        assert parsed.due.tzinfo is UTC


@pytest.mark.parametrize("line", [b"", b"  \t", b"\r"])
def test_a_blank_line_says_nothing(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run", "not JSON: Expecting value, at column 1"),
        ("# a comment", "not JSON: Expecting value, at column 1"),
        ('{"id": 1', "not JSON: Expecting"),
        (b'{"id": "\xff"}', "not UTF-8: invalid start byte at byte 8"),
        ("[" * 100_000, "not JSON that can be read: "),
        ('{"id": %s, "run": ["ls"]}' % ("1" * 5000), "not JSON that can be read: "),
        ("[]", "expected a JSON object, not a list"),
        ("null", "expected a JSON object, not null"),
        ('"id"', "expected a JSON object, not a string"),
        ("3", "expected a JSON object, not a number"),
        ('{"run": ["ls"]}', '"id" is missing'),
        ('{"id": 1}', '"run" is missing'),
        ("{}", '"id" is missing'),
        ('{"id": true, "run": ["ls"]}', '"id" must be a string or a whole number, not true'),
        ('{"id": 1.5, "run": ["ls"]}', '"id" must be a string or a whole number, not a number with a fraction'),
        ('{"id": null, "run": ["ls"]}', '"id" must be a string or a whole number, not null'),
        ('{"id": [1], "run": ["ls"]}', '"id" must be a string or a whole number, not a list'),
        ('{"id": {}, "run": ["ls"]}', '"id" must be a string or a whole number, not an object'),
        ('{"id": 1, "in": 1, "at": "2030-01-01", "run": ["ls"]}', '"in" and "at" exclude each other'),
        ('{"id": 1, "in": "1", "run": ["ls"]}', '"in" must be a number of seconds, not a string'),
        ('{"id": 1, "in": false, "run": ["ls"]}', '"in" must be a number of seconds, not false'),
        ('{"id": 1, "in": null, "run": ["ls"]}', '"in" must be a number of seconds, not null'),
        ('{"id": 1, "in": NaN, "run": ["ls"]}', "NaN is not JSON"),
        ('{"id": 1, "in": Infinity, "run": ["ls"]}', "Infinity is not JSON"),
        ('{"id": 1, "in": -Infinity, "run": ["ls"]}', "-Infinity is not JSON"),
        ('{"id": 1, "in": 1e400, "run": ["ls"]}', '"in" must be at most 1e+11 seconds'),
        ('{"id": 1, "in": 1e12, "run": ["ls"]}', '"in" must be at most 1e+11 seconds'),
        ('{"id": 1, "at": 3, "run": ["ls"]}', '"at" must be a string with an ISO 8601 time, not a number'),
        ('{"id": 1, "at": "noon", "run": ["ls"]}', '"at" is not an ISO 8601 time: "noon"'),
        ('{"id": 1, "at": "9999-12-31T23:59:59-12:00", "run": ["ls"]}', '"at" is not an ISO 8601 time: '),
        ('{"id": 1, "run": "ls"}', '"run" must be a list of strings, not a string'),
        ('{"id": 1, "run": []}', '"run" is empty: it must name a command'),
        ('{"id": 1, "run": ["ls", 1]}', '"run" must hold nothing but strings, not a number'),
        ('{"id": 1, "run": ["ls"], "it": 3}', 'unknown key: "it"'),
        ('{"id": 1, "run": ["ls"], "it": 3, "\\n": 3}', 'unknown keys: "it", "\\n"'),
        ('{"id": 1, "id": 2, "run": ["ls"]}', 'duplicate key "id"'),
        ('{"cancel": 1, "id": 2}', 'unknown key next to "cancel": "id"'),
        ('{"cancel": 1.0}', '"cancel" must be a string or a whole number, not a number with a fraction'),
        ('{"cancel": true}', '"cancel" must be a string or a whole number, not true'),
    ],
)
def test_a_malformed_line_says_what_is_wrong(line: str | bytes, message: str) -> None:
    with pytest.raises(MalformedLineError) as caught:
        parse_line(line if isinstance(line, bytes) else line.encode())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
