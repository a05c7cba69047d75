"""What `make engines` reads is where it looks: a machine that has the engines already never reads it."""

import xml.etree.ElementTree as ElementTree

import pytest

from runners.local.install import PARTS, POMS, Part

_MAVEN = [part for part in PARTS.values() if part.tool == "mvn"]


@pytest.mark.parametrize("part", _MAVEN, ids=[part.source for part in _MAVEN])
def test_each_part_that_maven_fetches_has_its_file(part: Part) -> None:
    assert ElementTree.parse(POMS / part.source).getroot().tag.endswith("project")
