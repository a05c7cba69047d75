"""Half of all inputs are sound; the others have one to three bad parts."""

from __future__ import annotations

from hypothesis import strategies as st

from bench.input_fuzz import odd_lists, odd_options, odd_tables, odd_yaml
from bench.input_fuzz.customers import Draw
from bench.input_fuzz.good import good
from bench.input_fuzz.inputs import Inputs

FAULTS = {**odd_yaml.FAULTS, **odd_tables.FAULTS, **odd_lists.FAULTS, **odd_options.FAULTS}
_COMMANDS = (
    ["launch"],
    ["launch"],
    ["validate", "launch"],
    ["launch", "check"],
    ["preview"],
    ["schema", "validate"],
    ["launch", "why", "launch"],
)


def build(draw: Draw) -> Inputs:
    """One input. Which commands run after a bad part is one of a few."""
    inputs = good(draw)
    if not draw(st.booleans()):
        return inputs
    inputs.commands = list(draw(st.sampled_from(_COMMANDS)))
    certain = False
    for name in draw(st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3, unique=True)):
        inputs.bad.append(name.removesuffix(" too"))
        inputs.must = None
        FAULTS[name](draw, inputs)
        certain = certain or inputs.must == 2
    inputs.must = 2 if certain and not inputs.machine else None
    return inputs
