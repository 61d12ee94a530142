"""The checks of the project. ``nox`` runs them all; ``nox -s tests`` runs the tests on every Python that is there."""

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "typing", "docs", "package", "tests", "minimums", "coverage", "integrations"]

PROJECT = nox.project.load_toml("pyproject.toml")
SITE = "build/site"
PYTHONS = nox.project.python_versions(PROJECT)


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extras, and dependency groups."""
    session.install("-e.[trio,cli,opentelemetry,web]", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests."""
    install(session, "test")
    session.run("pytest", "--numprocesses=2", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Check style and types, and run the tests that are not marked slow: the developer's loop."""
    install(session, "test", "types", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("pytest", "-q", "--numprocesses=2", "-m", "not slow", *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions of the dependencies that are allowed."""
    install(session, "test")
    extras = PROJECT["project"]["optional-dependencies"]
    names = ("trio", "cli", "opentelemetry", "web")
    requirements = [*PROJECT["project"]["dependencies"], *(package for name in names for package in extras[name])]
    requirements.append("pytest>=8.3")  # the lowest anyio's plugin does not go with the newest pytest
    session.install(*[requirement.replace(">=", "==") for requirement in requirements])
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests, those of the core once more with tasks started in anyio's own way; fail if a branch was not taken."""
    install(session, "test")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", *session.posargs)
    others = [f"--ignore=tests/{name}" for name in ("cli", "virtual", "docs", "test_benchmarks.py")]
    session.run("pytest", "-q", "--numprocesses=2", "--starter=group", *others)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def integrations(session: nox.Session) -> None:
    """Run the pages on frameworks and on other schedulers with these, on the oldest and on the newest Python."""
    install(session, "test", "integrations")
    session.run("pytest", "--numprocesses=2", "tests/integrations", "tests/migration", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, as mypy and as pyright see them, and that users get one for everything."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "anysched", "--ignoreexternal")


@nox.session
def package(session: nox.Session) -> None:
    """Build the distributions as for the index, and use the wheel in an environment of its own, without trio."""
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


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


def build_site(session: nox.Session) -> None:
    """Build the site of the documentation, into ``build/site``. A warning is an error."""
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "-d", "build/doctrees", "docs", SITE)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of the documentation."""
    install(session, "docs")
    build_site(session)


@nox.session
def site(session: nox.Session) -> None:
    """Build the site, and look at it in headless Chromium, which is to be installed; options are passed on."""
    install(session, "docs", "site")
    build_site(session)
    session.run("python", "docs/check_site.py", SITE, *session.posargs)


@nox.session
def web(session: nox.Session) -> None:
    """Look at the dashboard in headless Chromium, which must be installed, and check its accessibility with axe-core."""
    install(session, "test", "site")
    folder = Path(session.create_tmp())
    session.run("npm", "install", "--silent", "--prefix", str(folder), "axe-core@4", external=True)
    axe = folder / "node_modules" / "axe-core" / "axe.min.js"
    session.run("pytest", "tests/browser", *session.posargs, env={"AXE": str(axe)})


@nox.session
def demo(session: nox.Session) -> None:
    """Show the command line at work: a delay, a replacement, a cancellation and a failing command."""
    session.install("-e.[trio,cli]")
    session.run("python", "-m", "anysched", "--demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the scheduler and its peers at the same work, in turn; options are passed on (``-- --quick``)."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
