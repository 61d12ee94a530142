"""Check the contents of the sdist and the wheel; ``nox -s package`` runs it on those that it has built."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from html.parser import HTMLParser
from pathlib import Path

from readme_renderer import markdown

ROOT = Path(__file__).parents[2]
TOP = ("src", "tests", "docs", "benchmarks", ".ci", ".github")
FILES = (
    "pyproject.toml", "noxfile.py", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", ".pre-commit-config.yaml", ".readthedocs.yaml",
)  # fmt: skip
LEFT_BEHIND = {"__pycache__", ".hypothesis"}


def sources(folder: Path) -> set[str]:
    """Return the files below a folder, by their paths in the project."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not LEFT_BEHIND & set(path.parts))
    return {path.relative_to(ROOT).as_posix() for path in paths}


class Links(HTMLParser):
    """Collects the links, pictures and anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchor of a tag."""
        for name, value in attrs:
            if name in ("href", "src"):
                self.targets.add(str(value))
            elif name in ("id", "name"):
                self.anchors.add(f"#{value}")


def check_description(text: str) -> None:
    """Check that no link or picture of the README is dead on the index, which has no other files of the project."""
    html = markdown.render(text)
    assert html, "the index would show the source"
    links = Links(html)
    dead = {target for target in links.targets - links.anchors if not target.startswith("https://")}
    assert not dead, dead


def check_metadata(metadata: Message) -> None:
    """Check the metadata for the index and installers."""
    assert metadata["Name"] == "anysched"
    assert f"\n## [{metadata['Version']}] - 20" in (ROOT / "CHANGELOG.md").read_text("utf-8"), (
        "the version has no entry"
    )
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    check_description(str(metadata.get_payload()))
    urls = [line.split(", ")[1] for line in metadata.get_all("Project-URL", [])]
    repository = os.environ.get("ANYSCHED_REPOSITORY", "")
    assert bool(urls) == bool(repository)
    assert all(url.startswith(repository) for url in urls), urls
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [line.partition(">")[0] for line in required] == ["anyio"]
    assert set(metadata.get_all("Provides-Extra", [])) >= {"cli", "time-machine", "trio"}
    for name in ("Framework :: AnyIO", "Framework :: AsyncIO", "Framework :: Trio", "Framework :: Pytest"):
        assert name in metadata.get_all("Classifier", []), name
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def check_wheel(path: Path) -> None:
    """Check that the wheel contains the package and nothing else."""
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == {name.removeprefix("src/") for name in sources(ROOT / "src" / "anysched")}
        assert "anysched/py.typed" in names
        (info,) = {name.partition("/")[0] for name in wheel.namelist()} - {"anysched"}
        assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
        assert "[console_scripts]\nanysched = anysched.__main__:main" in entry_points
        assert "[pytest11]\nanysched = anysched.pytest_plugin" in entry_points
        check_metadata(Parser().parsestr(wheel.read(f"{info}/METADATA").decode()))


def check_sdist(path: Path) -> None:
    """Check that the sdist has everything that is needed to build, test and document the package."""
    expected = set(FILES).union(*(sources(ROOT / top) for top in TOP))
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        assert names - {"PKG-INFO", ".gitignore"} == expected, names ^ expected
        metadata = sdist.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert metadata is not None
        check_metadata(Parser().parsestr(metadata.read().decode()))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        (check_wheel if argument.endswith(".whl") else check_sdist)(Path(argument))
