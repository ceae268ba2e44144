"""Hooks of mkdocs: the site's pages are the repository's Markdown files, read where they lie.

Every page keeps its place in the repository as its address, so a link from one README to another holds in both. A link
to any other file brings that file into the site; one to a folder leads to the folder's README, or becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("runtime", "export", "calib", "robot_io", "configs", "sim", "train", "examples", "tests")
TOP = ("README.md", "CHANGELOG.md", "THIRD_PARTY.md")
# Tables that tests compare with, and stubs of packages that examples install.
LEFT_OUT = ("golden", "__pycache__")
_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^()\s]+)\)")


def pages() -> list[str]:
    """The Markdown files of the repository that are pages, as paths from its root."""
    found = [path.relative_to(REPOSITORY) for room in ROOMS for path in (REPOSITORY / room).rglob("*.md")]
    return [*TOP, *sorted(path.as_posix() for path in found if not set(path.parts) & set(LEFT_OUT))]


def links(page: str, text: str) -> Iterator[tuple[re.Match[str], str, str]]:
    """The relative links of a page: the match, the path from the repository's root, and `#anchor` or nothing."""
    for match in _LINK.finditer(text):
        target, mark, anchor = match["target"].partition("#")
        if target and not re.match(r"[a-z]+:", target):
            yield match, posixpath.normpath(posixpath.join(posixpath.dirname(page), target)), mark + anchor


def on_config(config: Any) -> Any:
    """Add the pages that the navigation leaves out to its end."""
    listed = set(_targets(config.nav))
    more = [page for page in pages() if page not in listed]
    if more:
        config.nav.append({"More": more})
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages, and the files that they link to."""
    wanted = pages()
    for page in list(wanted):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        wanted += [target for _, target, _ in links(page, text) if (REPOSITORY / target).is_file()]
    for path in dict.fromkeys(wanted):
        files.append(File.generated(config, path, abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Lead links to folders to their READMEs; what lies outside every page becomes plain text."""
    here = page.file.src_uri
    changed = markdown
    for match, target, anchor in links(here, markdown):
        if (REPOSITORY / target).is_dir():
            readme = posixpath.join(target, "README.md")
            to = f"({posixpath.relpath(readme, posixpath.dirname(here) or '.')}{anchor})"
            text = match["text"]
            changed = changed.replace(match[0], text + to if (REPOSITORY / readme).is_file() else text[1:-1])
    return changed


def _targets(nav: Any) -> Iterator[str]:
    """The pages that a navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for part in nav.values():
            yield from _targets(part)
    else:
        for part in nav:
            yield from _targets(part)
