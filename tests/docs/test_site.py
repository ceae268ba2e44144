"""The documentation as a site: every page is there, and no link is broken."""

import re
from pathlib import Path

import pytest

pytest.importorskip("material", reason="the extra `docs` is not installed")
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "docs" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(CONFIG), site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    except Abort as error:
        pytest.fail(f"{error}: `make docs` says which links are broken")
    return folder


def test_every_readme_is_a_page_of_the_site(site):
    for page in ("", "runtime/INSTALL", "export", "runtime/memory", "robot_io/SAFETY", "examples", "CHANGELOG"):
        assert (site / page / "index.html").is_file(), page


def test_links_to_code_and_folders_hold_in_the_site_too(site):
    page = (site / "examples" / "index.html").read_text(encoding="utf-8")
    code = re.search(r'href="([^"]*my_arm\.py)"', page)
    assert code is not None
    shown = (site / "examples" / code[1]).read_bytes()
    assert shown == (REPOSITORY / "examples" / "my_arm" / "my_arm.py").read_bytes()


def test_the_site_loads_nothing_from_elsewhere(site):
    pattern = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"')
    for page in site.rglob("index.html"):
        loaded = pattern.findall(page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.relative_to(site)}: {loaded}"
