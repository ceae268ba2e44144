"""Every link between the repository's pages leads somewhere: the file exists, and the heading it points at."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = {".venv", "build", "dist", "node_modules", ".git", "site"}  # not ours to check
PAGES = sorted(
    page for page in ROOT.rglob("*.md") if not OTHERS & set(page.relative_to(ROOT).parts) and page.name[0] != "."
)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def prose(page):
    """Without what stands in code, where brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "``", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page):
    """As GitHub names headings: lower case, punctuation gone, blanks to hyphens, a number for each repetition."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    seen, found = Counter(), set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(name if not seen[name] else f"{name}-{seen[name]}")
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    dead = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_pages_are_found():
    assert ROOT / "README.md" in PAGES
    assert len(PAGES) > 20
