"""Compare docs/features.md with the code: operations, tiles, qualities, counts, options."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from dataclasses import fields

from support.pages import first_column, section

from pipelines.command_line.commands import add_features_options
from schemas.features.declarations import FeatureGroup
from schemas.features.operations import OPERATIONS
from schemas.features.windows import HOPS, hop_of, window_ms
from serving.features.reader import Quality
from transforms.features.counters import COUNTERS

PAGE = "features.md"


def test_the_fields_and_operations_of_declarations_are_those_of_their_page() -> None:
    declared = {one.name for one in fields(FeatureGroup)} - {"aggregations", "every"}  # shown, and explained further on
    assert first_column(section(PAGE, "What can I declare?")) - {"FeatureGroup"} == declared
    assert first_column(section(PAGE, "Which aggregations are there?")) == OPERATIONS


def test_the_tiles_of_each_window_are_those_of_their_page() -> None:
    rows = re.findall(r"^\| (to|below) (\w+) \| (\d+) (\w+) \|$", section(PAGE, "How exact is a window?"), re.MULTILINE)
    units = {"s": 1_000, "minute": 60_000, "minutes": 60_000, "hour": 3_600_000, "day": 86_400_000}
    assert len(rows) == len(HOPS)
    for place, (bound, window, count, unit) in enumerate(rows):
        longest = window_ms(window) - (bound == "below")
        assert HOPS[hop_of(longest)] == HOPS[place] == int(count) * units[unit]
        assert place == len(HOPS) - 1 or hop_of(longest + 1) == place + 1


def test_the_qualities_counts_and_options_are_those_of_their_page() -> None:
    table = section(PAGE, "What is the quality of a value?")
    assert re.findall(r"^\| (\w+) \|", table, re.MULTILINE)[1:] == [str(quality) for quality in Quality]
    counts = {name for name in COUNTERS.names if name not in ("held", "released")}
    assert first_column(section(PAGE, "When does an event not count?")) == counts
    parser = ArgumentParser(add_help=False)
    add_features_options(parser)
    text = section(PAGE, "Which options has the pipeline?").partition("\n\n`python -m")[0]
    assert set(re.findall(r"--\w+", text)) == set(parser._option_string_actions) | {"--store"}
