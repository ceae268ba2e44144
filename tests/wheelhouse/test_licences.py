"""Everything that a wheel set passes on has its licence named."""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.licences import licence_of
from memrt.runtime.wheelhouse.resolve import normalised
from memrt.runtime.wheelhouse.targets import PYTHONS, TARGETS

NOTES = Path(__file__).parents[2] / "THIRD_PARTY.md"


def metadata(**fields: str | list[str]) -> Message:
    """A distribution's metadata."""
    message = Message()
    for name, values in {"Name": "Some_Package", "Version": "1.0", **fields}.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT OR Apache-2.0", "License": "see file"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "a whole text\nof many lines", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"Classifier": ["Topic :: Software", "License :: OSI Approved :: BSD License"]}, "BSD"),
    ],
)
def test_a_licence_is_read_from_where_packages_put_it(fields, licence):
    assert licence_of(metadata(**fields)).licence == licence


def test_a_package_without_a_licence_is_refused():
    with pytest.raises(MemrtError, match=r"licence of some-package.*found none"):
        licence_of(metadata(Classifier="Topic :: Software"))


def test_the_address_is_the_projects():
    links = ["Changelog, https://example.org/changes", "Homepage, https://example.org"]
    assert licence_of(metadata(License="MIT", Project_URL=links)).address == "https://example.org"
    assert licence_of(metadata(License="MIT")).address == "https://pypi.org/project/some-package/"


def needed(name: str, extras: tuple[str, ...], python: str) -> set[str]:
    """A package and all that it needs with that Python, as far as it is installed."""
    found: set[str] = set()
    ahead = [(name, frozenset(extras))]
    done = set()
    while ahead:
        package, wanted = current = ahead.pop()
        if current in done:
            continue
        done.add(current)
        found.add(normalised(package))
        try:
            requires = distribution(package).requires or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, requires):
            marker = requirement.marker
            if marker is None or any(
                marker.evaluate({"extra": extra, "python_version": python}) for extra in wanted | {""}
            ):
                ahead.append((requirement.name, frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_everything_a_robot_installs_is_in_the_notes(target, python):
    listed = set(re.findall(r"^\| \[([a-z0-9-]+)\]", NOTES.read_text(encoding="utf-8"), re.MULTILINE))
    missing = needed("memrt", TARGETS[target].extras, python) - listed - {"memrt"}
    assert not missing, "make wheel sets of all targets, then `make third-party`"
