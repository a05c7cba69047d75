"""The fuzzer with 2,000 odd events: the job ends, and nobody is hurt."""

from __future__ import annotations

import random

import pytest

from bench.fuzz import fuzz, sound
from bench.mutations import Mutations

NOW = 1_900_000_000_000


@pytest.mark.timeout(900)
def test_two_thousand_odd_events_stop_no_job_and_cost_no_neighbour() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown when it fails
    found = fuzz(2_000, seed, part=500)
    assert sound(found), found
    assert found["mutated"] == found["neighbours"] == 2_000
    ended = sum(found[name] for name in ("accepted", "expired", "left_waiting", "unknown"))
    assert ended + sum(found["dead_lettered"].values()) + sum(found["rejected"].values()) == 2_000
    assert (found["neighbours_missing"], found["accepted_twice"], found["lost"], found["in_two_places"]) == (0, 0, 0, 0)
    assert {"broken_bytes", "bad_time", "unusable_event", "missing_attributes"} <= found["dead_lettered"].keys()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_events(seed: int) -> None:
    some, again, others = (Mutations(one, NOW) for one in (seed, seed, seed + 1))
    made = [some.any() for _ in range(50)]
    assert made == [again.any() for _ in range(50)] != [others.any() for _ in range(50)]
    assert len({one.body for one in made}) == 50
