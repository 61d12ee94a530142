"""The checks of the project. ``nox`` runs all of them, ``nox -s quick`` a fast subset for development.

Sessions whose Python is not installed are skipped. The tags name the two halves that ``.ci/run`` runs in parallel.
"""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.tags = ["first", "second"]

PROJECT = nox.project.load_toml("pyproject.toml")
SITE = "build/site"
PYTHONS = nox.project.python_versions(PROJECT)
CI = "CI" in os.environ
FORGE_FILES = [
    ("citation-file-format", "CITATION.cff"),
    ("dependabot", ".github/dependabot.yml"),
    ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/idea.yml"),
    ("github-workflows", ".github/workflows/ci.yml", ".github/workflows/release.yml"),
    ("readthedocs", ".readthedocs.yaml"),
]
NEWEST = next((version for version in reversed(PYTHONS) if shutil.which(f"python{version}")), PYTHONS[0])
# From Python 3.14 on, measuring the coverage of branches hardly slows the tests down.
COVERED = "3.14" if shutil.which("python3.14") else PYTHONS[0]
PYTEST = ("pytest", "-q", "--numprocesses=2")


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extras and the given dependency groups."""
    session.install("-e.[trio,cli,opentelemetry,postgres,web]", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(python=[version for version in PYTHONS if not (CI and version == COVERED)], tags=["first"])
def tests(session: nox.Session) -> None:
    """Run the tests on each installed Python."""
    install(session, "test")
    # All tests run in the coverage session. Those that need PostgreSQL also run in `minimums`.
    session.run(*PYTEST, *(["-m", "not slow and not postgres"] if CI else []), *session.posargs)


@nox.session(python=COVERED, tags=["second"])
def coverage(session: nox.Session) -> None:
    """Run the tests, those of the core also with tasks started through anyio; fail if a branch was not taken."""
    install(session, "test")
    session.run("coverage", "erase")
    # Two pytest processes run the tests; coverage measures them like any other subprocess, by `patch`.
    session.run("coverage", "run", "-m", *PYTEST, *session.posargs)
    # Not those to which it makes no difference how tasks are started.
    others = ("cli", "virtual", "docs", "durable", "test_benchmarks.py", "test_cron.py", "core/test_timer_queue.py")
    session.run(*PYTEST, "--starter=group", "-m", "not slow", *(f"--ignore=tests/{name}" for name in others))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def quick(session: nox.Session) -> None:
    """Check style and types, and run the tests that are not marked slow, for quick feedback during development."""
    install(session, "test", "types", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", ".ci/prose.py")
    session.run("mypy")
    session.run(*PYTEST, "-m", "not slow", *session.posargs)


@nox.session(python=PYTHONS[0], tags=["second"])
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest allowed versions of the dependencies."""
    install(session, "test")
    extras = PROJECT["project"]["optional-dependencies"]
    names = ("trio", "cli", "opentelemetry", "postgres", "web")
    requirements = [*PROJECT["project"]["dependencies"], *(package for name in names for package in extras[name])]
    requirements.append("opentelemetry-sdk>=1.30")  # must have the same version as the API
    requirements.append("pytest>=8.3")  # the plugin of the lowest anyio does not work with the newest pytest
    session.install(*[requirement.replace(">=", "==") for requirement in requirements])
    session.run(*PYTEST, *(["-m", "not slow"] if CI else []), *session.posargs)


@nox.session(python="3.14", tags=["first"])
def contexts(session: nox.Session) -> None:
    """Run the tests of the core where threads inherit the context, as they do in a free-threaded Python."""
    install(session, "test")
    defaults = {"PYTHON_THREAD_INHERIT_CONTEXT": "1", "PYTHON_CONTEXT_AWARE_WARNINGS": "1"}
    session.run(*PYTEST, "tests/core", "-m", "not slow", *session.posargs, env=defaults)


@nox.session
def zones(session: nox.Session) -> None:
    """Compare a year of cron times in all time zones with a minute-by-minute reference; this takes minutes."""
    install(session, "test")
    session.run("pytest", "--numprocesses=2", "tests/test_cron.py", "--all-zones", *session.posargs)


# A dependency of these (pycares) has no wheel for the newest Python yet.
@nox.session(python=[PYTHONS[0], PYTHONS[-2]], tags=["first"])
def integrations(session: nox.Session) -> None:
    """Run the examples of the pages on frameworks and other schedulers with the real packages."""
    install(session, "test", "integrations")
    session.run(*PYTEST, "tests/integrations", "tests/migration", "tests/docs/test_spreading.py", *session.posargs)


@nox.session(tags=["second"])
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, users' programs also with ty and pyrefly, and the API's completeness."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "anysched", "--ignoreexternal")
    session.run("python", "tests/typing/check_others.py")


@nox.session(tags=["first"])
def package(session: nox.Session) -> None:
    """Build the distributions as for PyPI, and test the wheel in a separate environment without trio."""
    session.install(*nox.project.dependency_groups(PROJECT, "package"))
    folder = Path(session.create_tmp())
    for archive in folder.glob("anysched-*"):
        archive.unlink()
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    archives = [str(path) for path in folder.glob("anysched-*")]
    session.run("twine", "check", "--strict", *archives)
    session.run("python", "tests/package/check_archives.py", *archives)
    fresh = folder / "fresh"
    python = str(fresh / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    session.run("python", "-m", "venv", "--clear", str(fresh))
    session.run(python, "-m", "pip", "install", "--quiet", *folder.glob("*.whl"), external=True)
    session.run(python, "tests/package/check_installation.py", external=True)


@nox.session(tags=["first"])
def lint(session: nox.Session) -> None:
    """Check the style of code and prose, and the files for GitHub."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", ".ci/prose.py")
    session.run("shellcheck", ".ci/run", ".ci/get-python", ".ci/get-servers")
    session.run("zizmor", "--offline", "--quiet", "--persona=pedantic", ".github")
    for schema, *paths in FORGE_FILES:
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


def build_site(session: nox.Session) -> None:
    """Build the documentation site into ``build/site``. Warnings are errors."""
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "-d", "build/doctrees", "docs", SITE)


@nox.session(tags=["first"])
def docs(session: nox.Session) -> None:
    """Build the documentation site, and test its search with the questions of new users."""
    install(session, "docs")
    build_site(session)
    session.run("python", "docs/check_search.py", SITE)


@nox.session
def site(session: nox.Session) -> None:
    """Build the site and check it in headless Chromium, which must be installed; options are passed on."""
    install(session, "docs", "site")
    build_site(session)
    session.run("python", "docs/check_site.py", SITE, *session.posargs)


@nox.session(tags=["second"])
def web(session: nox.Session) -> None:
    """Check the dashboard in headless Chromium, and its accessibility with axe-core; both chromedriver and npm are needed."""
    if not (shutil.which("chromedriver") and shutil.which("npm")):
        session.skip("chromedriver and npm are not installed")
    install(session, "test", "site")
    folder = Path(session.create_tmp())
    session.run("npm", "install", "--silent", "--prefix", str(folder), "axe-core@4", external=True)
    axe = folder / "node_modules" / "axe-core" / "axe.min.js"
    session.run("pytest", "tests/browser", *session.posargs, env={"AXE": str(axe)})


@nox.session
def demo(session: nox.Session) -> None:
    """Demonstrate the command line: a delay, a replacement, a cancellation and a failing command."""
    session.log("installing anysched and what its command line uses, which may take a minute")
    session.install("-e.[trio,cli,web]")
    session.run("python", "-m", "anysched", "demo", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Interrupt a busy scheduler a hundred times at random moments, on each backend."""
    install(session, "test")
    session.run("pytest", "tests/soak/test_random_interrupts.py", *session.posargs, env={"INTERRUPTS": "100"})


@nox.session
def instructions(session: nox.Session) -> None:
    """Call each method between any two instructions of an operation, as a signal handler would; this takes two hours."""
    install(session, "test")
    each = {"INTERRUPTED_EACH": "1"}
    session.run(*PYTEST, "tests/core/test_interrupting_calls.py", *session.posargs, env=each)


@nox.session
def soak(session: nox.Session) -> None:
    """Load a scheduler at random for ten minutes on each backend; fail if its memory grows. Other lengths by SOAK, in seconds."""
    install(session, "test")
    seconds = session.env.get("SOAK") or "600"
    session.run("pytest", "tests/soak/test_soak.py", *session.posargs, env={"SOAK": seconds})


@nox.session
def kills(session: nox.Session) -> None:
    """Kill a program with a durable scheduler three hundred times at random moments, and check what it did.

    On PostgreSQL, the server is restarted and, with the rights of root on Linux, the network is cut in between.
    """
    install(session, "test")
    kills = session.env.get("KILLS") or "300"
    session.run("pytest", "tests/durable/test_durable_kills.py", *session.posargs, env={"KILLS": kills})
    session.run("python", "tests/durable/kills_postgres.py", kills)


@nox.session(python=sorted({PYTHONS[0], NEWEST}, key=PYTHONS.index))
def bench(session: nox.Session) -> None:
    """Measure the scheduler and other libraries on the oldest and newest Python; options are passed on (``-- --quick``)."""
    if session.python == PYTHONS[0]:
        install(session, "bench")
    else:
        # A library without a wheel for this Python is left out.
        session.install("-e.[trio]", "rich>=13.9")
        for package in nox.project.dependency_groups(PROJECT, "bench"):
            session.install("--only-binary=:all:", package, success_codes=[0, 1])
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def bench_durable(session: nox.Session) -> None:
    """Measure the durable tier, APScheduler 3 and DBOS, all on SQLite; options are passed on (``-- --quick``)."""
    install(session, "bench")
    session.install("dbos>=3.4", "sqlalchemy>=2")
    session.run("python", "-m", "benchmarks.durable", *session.posargs)


@nox.session
def bench_postgres(session: nox.Session) -> None:
    """Measure the durable tier, Procrastinate, chancy and DBOS, all on one PostgreSQL server, which must be installed."""
    install(session, "bench")
    session.install("chancy>=0.26", "dbos>=3.4", "procrastinate>=3.10", "psycopg[binary]>=3.3")
    session.run("python", "-m", "benchmarks.postgres", *session.posargs)
