"""What the documentation consists of: its pages, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"), *DOCS.glob("api/*.md")]
)
# What else is written for readers: its files and links are checked, its commands are not run.
REPORTS = sorted([*ROOT.glob("experiments/**/README.md"), *ROOT.glob("scalefp/assets/*.md")])
# A fence, what it says of its content, the content, the same fence.
FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str
    output: str | None  # the block of text that follows at once


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in order."""
    source, found = page.read_text(), []
    for match in FENCE.finditer(source):
        behind = FENCE.match(source, match.end() + 2)  # behind an empty line
        output = behind[3] if behind is not None and behind[2] == "text" else None
        found.append(Block(match[2].strip(), match[3], output))
    return [block for block in found if block.language in languages]


def name_of(page: Path) -> str:
    """A page as tests are named after it."""
    return page.relative_to(ROOT).as_posix()
