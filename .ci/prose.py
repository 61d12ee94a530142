"""Check the English of the pages, docstrings, comments and messages; ``nox -s lint`` runs it.

proselint applies the patterns of ``STYLE`` and some of its own checks. It works offline.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path

from proselint.checks import __register__ as built_in
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, CheckFlags, types
from proselint.tools import LintFile, LintResult

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", ".github/*.md", "docs/**/*.md")
SOURCES = (
    "src/**/*.py", "benchmarks/**/*.py", "tests/**/*.py", "docs/**/*.py", ".ci/project_urls.py", "noxfile.py",
)  # fmt: skip

# A pattern, and what to write instead, with an example where that is not obvious.
STYLE = {
    r"\btakes none\b": "say what is not taken",
    r"\bin the seed\b": "pydis_core",
    r"\brooms\b": "modules",
    r"\b(?:forsak|vacat)\w+": "release",
    r"\btake note\b": "name the act: Record, Count; Called when",
    r"\blest\b": "so that not",
    r"\b(?:has|have) seen to\b": "say what it does",
    r"\bin their hands\b": "public",
    r"\bas rude as\b": "abrupt",
    r"\bnone of the (?:group|scheduler)'s business\b": "say what it does",
    r"\btime line\b": "timeline",
    r"\bto the letter\b": "with the same signatures",
    r"\btells? the rest\b": "see",
    r"\bin vain\b": "for nothing",
    r"\bdearer\b": "more expensive",
    r"\bformers?\b": "predecessor",
    r"\bTells? (?:whether|if|how|that)\b": "Return whether",
    r"\bwhat (?:came|has come|comes|becomes|has become) of\b": "outcome, result, status",
    r"\blet(?:s|ting)? go\b": "release, discard, remove",
    r"\blet through\b": "yield to the event loop",
    r"\b(?:nobody|somebody|whoever)\b": "the passive, or the role: the caller, the user",
    r"\b(?:there )?(?:is|are|was|were) no \w+": "is not a",
    r"\b(?:is|are|was|were) to (?:be|\w+)\b": "must, will, should",
    r"\ball that\b": "the noun: pending tasks, running tasks",
    r"\bwhat (?:waits|runs|is)\b": "the noun: pending tasks, running tasks",
    r"\bstands? (?:for|in|beside)\b": "is, represents, is listed in",
    r", too\b": "also, or nothing",
    r"\bonce more\b": "again",
    r"\banew\b": "again",
    r"\bmeanwhile\b": "in the meantime, or nothing",
    r"\bwithout a word\b": "silently",
    r"\bgo(?:es)? on\b|\bwent on\b|\bran on\b": "continue: 'the other tasks continue'",
    r"\bput(?:s|ting)? off\b": "postpone, delay: 'each run is delayed by a random time'",
    r"\bf[ae]lls? due\b": "become due: 'runs that became due in the meantime'",
    r"\brais\w+ (?:it )?as itself\b": "unchanged: 'raises the exception unchanged'",
    r"\bat the (?:most|least)\b": "at most, at least",
    r"\b(?:is|are|was|were) handed over\b|\bhand(?:s|ing)? over\b": "pass: 'the coroutines that it is given'",
    r"\bmade up for\b": "catch up: 'one run catches up for the missed ones'",
    r"\bsome (?:ten|hundred|thousand|minutes)\b": "about, a few: 'about ten minutes'",
    r"\btaken as\b": "interpreted as: 'a naive time is interpreted as UTC'",
    r"\bthe present (?:clocks?|one|run|state|time)\b": "the current: 'the current time'",
    r"\bso many\b": "a number of, this many: 'after a number of seconds'",
    r"\bthose who\b": "the role: 'the tasks that wait for it'",
    r"\bany more\b": "no longer: 'a task that is no longer remembered'",
    r"\bagain and again\b": "repeatedly, or recurring",
    r"\bbeside\b": "next to, in addition to, compared with",
    r"\ban? (?:\w+ )?\w+ of (?:its|their|one's) own\b": "its own, separate: 'in a separate process'",
    r"\b(?:forgets? nothing|outlives?)\b": "survive: 'the tasks survive a restart'",
    r"\bin its life\b": "state, status",
    r"\bof which (?:this|it) is\b": "from: 'return the ID from its stored text'",
    r"\bas (?:it is|they are) stored\b": "the stored form: 'a stored task'",
    r"\bif need be\b": "optionally, if necessary",
    r"\bas it (?:comes|likes)\b": "say when: 'with default settings', 'line by line'",
    r"\b(?:has|have) (?:it|them) (?:read|run|written)\b": "make: 'SIGHUP makes it read the file again'",
    r"\bserves? (?:nothing|the times?|what)\b": "cover, run for: 'a run covers all due times'",
    r"\bwhere there is (?:no|none|one)\b": "if: 'if there is one'",
    r"\bknows? (?:neither|nothing|no)\b": "does not have, does not depend on",
    r", and (?:is|are|was|were|has|have|can|will|does|never)\b": "no comma before a verb with the same subject",
}
# Matches that are good English after all.
EXCEPTIONS = (r"there\s[\s\S]*", r"\w+\s+no\s+(?:longer|more)")
# The checks of proselint that suit technical prose.
BUILT_IN = (
    "cliches", "industrial_language", "malapropisms", "mixed_metaphors", "mondegreens", "nonwords",
    "oxymorons", "social_awareness", "uncomparables",
)  # fmt: skip


def prose_of_page(text: str) -> str:
    """Blank the code in Markdown; lines keep their numbers."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        opening = re.match(r" *(`{3,})", line)
        if fence or opening:
            if not fence and opening:
                fence = opening[1]
            elif line.strip() == fence:
                fence = ""
            line = ""  # noqa: PLW2901
        lines.append(line)
    return re.sub(r"(`+).*?\1", "x", "\n".join(lines))


def prose_of_source(text: str) -> str:
    """Keep comments and strings of Python; lines keep their numbers."""
    lines = [""] * (text.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            for number, line in enumerate(token.string.split("\n"), token.start[0] - 1):
                lines[number] += f"{line} "
    return "\n".join(lines)


def lint(path: Path, checks: dict[str, bool]) -> list[LintResult]:
    """Return the findings in a file."""
    text = path.read_text("utf-8")
    prose = prose_of_source(text) if path.suffix == ".py" else prose_of_page(text)
    return LintFile(str(path.relative_to(ROOT)), prose).lint({"max_errors": sys.maxsize, "checks": checks})


def main() -> int:
    """Print the findings; return the exit status."""
    registry = CheckRegistry()
    registry.register_many(built_in)
    for number, (pattern, better) in enumerate(STYLE.items()):
        pattern = pattern.replace(" ", r"\s+")  # noqa: PLW2901 - a phrase may be broken across lines
        registry.register(
            Check(
                types.ExistenceSimple(pattern, EXCEPTIONS),
                path=f"anysched.{number}",
                message=f"'{{}}': {better}",
                flags=CheckFlags(allow_quotes=True),
            )
        )
    checks = dict.fromkeys(("anysched", *BUILT_IN), True)
    files = [path for pattern in (*PAGES, *SOURCES) for path in sorted(ROOT.glob(pattern))]
    found = [(path, result) for path in files for result in lint(path, checks)]
    for path, result in found:
        print(f"{path.relative_to(ROOT)}:{result.pos[0]}: {' '.join(result.check_result.message.split())}")
    print(f"{len(found)} findings in {len(files)} files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
