"""The files of the project agree on the version and on the supported Pythons."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(ABOUT["classifiers"]))

if not (ROOT / ".github").exists():
    pytest.skip("without the repository", allow_module_level=True)


def test_the_tests_run_on_every_python() -> None:
    assert ABOUT["requires-python"] == f">={PYTHONS[0]}"
    (matrix,) = re.findall(
        r"^ +python: \[(.*)\]$", (ROOT / ".github/workflows/ci.yml").read_text("utf-8"), re.MULTILINE
    )
    assert re.findall(r"[\d.]+", matrix) == PYTHONS


def test_the_workflow_runs_every_session_that_has_to_pass() -> None:
    required = re.findall(r"tags=\[.*\]\)\ndef (\w+)", (ROOT / "noxfile.py").read_text("utf-8"))
    run = re.findall(r"(?:session: |nox -s )([a-z]+)", (ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert set(run) == set(required)


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    (date,) = re.findall(
        rf"^## \[{re.escape(ABOUT['version'])}\] - (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert f'\nversion: {ABOUT["version"]}\ndate-released: "{date}"\n' in citation
    assert f"\nabstract: {ABOUT['description']}\n" in citation


def test_the_readme_is_short_and_names_every_extra() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 120
    installation = (ROOT / "docs/installation.md").read_text("utf-8")
    for page in (readme, installation):
        assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(ABOUT["optional-dependencies"])


def test_the_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https:)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_read_the_docs_builds_the_site_with_the_extras_that_nox_does() -> None:
    (ours,) = re.findall(r'session\.install\("-e\.\[(.*)\]", \*nox', (ROOT / "noxfile.py").read_text("utf-8"))
    (theirs,) = re.findall(r'-e "\.\[(.*)\]"', (ROOT / ".readthedocs.yaml").read_text("utf-8"))
    assert theirs == ours
