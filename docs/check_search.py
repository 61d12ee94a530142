"""Checks that the search of the built site finds the pages that new users look for: ``nox -s docs``.

The index is read as the page does it: each word of a query must be in the text, a title or a name of the page.
``nox -s site`` also asks in Chromium, and wants the page among the first results.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUESTIONS: dict[str, tuple[str, ...]] = {
    "installation": ("install", "pip", "extras", "Windows"),
    "how-to/errors": ("logging", "exception", "traceback"),
    "integrations/sentry": ("Sentry",),
    "how-to/retries": ("retry", "retries", "timeout", "stamina", "tenacity"),
    "how-to/results": ("progress bar", "worker pool", "rich"),
    "how-to/blocking": ("blocking", "keyword arguments", "kwargs", "synchronous function"),
    "how-to/threads": ("thread",),
    "how-to/time-zones": ("timezone", "time zone", "DST", "daylight saving"),
    "how-to/processes": ("workers", "gunicorn", "leader election"),
    "how-to/durable": ("persistence", "restart", "SQLite", "job store"),
    "how-to/own-database": ("database", "PostgreSQL", "SQLAlchemy"),
    "how-to/machines": ("PostgreSQL", "high availability", "failover", "several machines", "distributed scheduler"),
    "how-to/process-pool": ("process pool", "BrokenWorkerProcess"),
    "how-to/dask": ("Dask",),
    "how-to/celery": ("Celery", "Redis"),
    "how-to/control": ("pause", "cancel prefix"),
    "api/cron": ("cron expression",),
    "how-to/periodic": ("interval",),
    "integrations/opentelemetry": ("metrics", "Prometheus", "tracing"),
    "how-to/instruments": ("hooks",),
    "how-to/testing": ("freezegun", "mock time", "virtual time"),
    "how-to/testing-web": ("TestClient", "httpx", "test FastAPI", "lifespan"),
    "how-to/testing-others": ("unittest", "pytest-asyncio", "IsolatedAsyncioTestCase"),
    "how-to/signals": ("SIGTERM", "Ctrl-C", "KeyboardInterrupt", "signal Windows"),
    "how-to/shutdown": ("graceful shutdown",),
    "deploying": ("Docker", "Kubernetes", "systemd", "container"),
    "crontab": ("crontab", "CRON_TZ"),
    "coming-from/others": ("supercronic", "arq", "Celery beat", "aiocron", "repeat_every"),
    "coming-from/apscheduler": ("APScheduler",),
    "when-not": ("alternatives", "Temporal", "Dramatiq"),
    "faq": ("FAQ", "Jupyter", "job runs several times", "every weekday"),
    "glossary": ("glossary", "debounce"),
    "stability": ("deprecation", "semantic versioning", "stability", "upgrade"),
    "changelog": ("changelog",),
    "contributing": ("contributing", "pull request"),
    "benchmarks": ("performance", "benchmark"),
}
"""What users look for, by the page that has the answer."""


def questions() -> Iterator[tuple[str, str]]:
    """Yield each query with its page."""
    for page, queries in QUESTIONS.items():
        for query in queries:
            yield query, page


class Index:
    """The index of the search.

    Args:
        site: The directory of the built site.
    """

    def __init__(self, site: Path) -> None:
        from sphinx.search.en import SearchEnglish

        text = (site / "searchindex.js").read_text("utf-8")
        self._index: dict[str, Any] = json.loads(text.removeprefix("Search.setIndex(").rstrip(")\n"))
        self._stem = SearchEnglish({}).stem

    def pages(self, query: str) -> set[str]:
        """Return the pages that have all words of a query."""
        words = re.findall(r"\w+", query)
        return set.intersection(*map(self._pages_with, words))

    def _pages_with(self, word: str) -> set[str]:
        found: set[int] = set()
        for terms in (self._index["terms"], self._index["titleterms"]):
            for term in {word.lower(), self._stem(word.lower())}:
                pages = terms.get(term, [])
                found.update([pages] if isinstance(pages, int) else pages)
        return {self._index["docnames"][number] for number in found}


def main() -> int:
    """Ask all questions.

    Returns:
        The exit status.
    """
    index = Index(Path(sys.argv[1]))
    unanswered = [(query, page) for query, page in questions() if page not in index.pages(query)]
    for query, page in unanswered:
        print(f"the search for {query!r} does not find {page}", file=sys.stderr)
    print(f"{len(list(questions()))} queries, {len(unanswered)} without their page")
    return 1 if unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
