from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from support.batches import any_plan, outcomes, stepped, variants
from support.factories import any_campaign, any_customers, any_engine

from schemas.outcomes import BY_FORCE, BY_HASH, BY_STICKY
from transforms.experiments.assignment import bucket, bucket_ranges, choose, in_namespace

CUSTOMERS = any_customers(2000)
IDS = CUSTOMERS["customer_id"].to_pylist()


def experiment(**changes: Any) -> dict[str, Any]:
    return {"key": "split", "variants": [{"key": "a", "weight": 0.3}, {"key": "b", "weight": 0.7}], **changes}


def launched(tmp_path: Path, changes: dict[str, Any], customers: pa.Table = CUSTOMERS, **more: Any) -> tuple[Any, Any]:
    engine = more.pop("engine", None)
    plan = any_plan(tmp_path, any_campaign(experiment=experiment(**changes)), customers=customers, engine=engine)
    return plan, stepped(plan, customers, **more)


def test_every_customer_gets_the_variant_of_the_published_hash(tmp_path: Path) -> None:
    plan, batch = launched(tmp_path, {})
    ranges = bucket_ranges(2, 1.0, [0.3, 0.7])
    wanted = {one: "ab"[choose(ranges, bucket("growthbook/2", "split", one))] for one in IDS}
    assert variants(plan, batch) == wanted
    assert set(batch.campaigns[0].assigned_by.tolist()) == {BY_HASH}


def test_coverage_leaves_the_rest_outside_with_or_without_the_message(tmp_path: Path) -> None:
    plan, batch = launched(tmp_path / "in", {"coverage": 0.5})
    without = [one for one, variant in variants(plan, batch).items() if variant is None]
    assert 800 < len(without) < 1200
    assert set(outcomes(batch).values()) == {"emitted"}
    plan, batch = launched(tmp_path / "out", {"coverage": 0.5, "outside": "exclude"})
    assert [one for one, outcome in outcomes(batch).items() if outcome == "outside/coverage"] == without


def test_a_namespace_takes_its_range_and_two_ranges_never_meet(tmp_path: Path) -> None:
    found = []
    for name, start, end in (("one", 0.0, 0.4), ("two", 0.4, 1.0)):
        plan, batch = launched(tmp_path / name, {"namespace": {"key": "shared", "range": [start, end]}})
        found.append({one for one, variant in variants(plan, batch).items() if variant})
        assert found[-1] == {one for one in IDS if in_namespace(one, ("shared", start, end))}
    assert found[0] | found[1] == set(IDS)
    assert not found[0] & found[1]


def test_holdouts_come_in_order_and_by_their_own_seeds(tmp_path: Path) -> None:
    engine = any_engine(holdouts={"global": {"share": 0.1, "seed": "g"}, "retailers": {"store-1": 0.2, "*": 0.05}})
    plan, batch = launched(tmp_path, {"holdout": 0.3}, engine=engine)
    retailer = dict(zip(IDS, CUSTOMERS["retailer_id"].to_pylist(), strict=True))

    def wanted(one: str) -> str:
        share = 0.2 if retailer[one] == "store-1" else 0.05
        if (bucket("growthbook/2", "g", one) or 0) < 0.1:
            return "held_out/global"
        if (bucket("growthbook/2", f"g:{retailer[one]}", one) or 0) < share:
            return "held_out/retailer"
        if (bucket("growthbook/2", "split:holdout", one) or 0) < 0.3:
            return "held_out/campaign"
        return "emitted"

    assert outcomes(batch) == {one: wanted(one) for one in IDS}
    assert {variants(plan, batch)[one] for one in IDS if wanted(one) != "emitted"} == {None}


def test_a_customer_without_a_unit_is_outside(tmp_path: Path) -> None:
    customers = any_customers(4, household=[1, None, 3, 4])
    _, batch = launched(tmp_path, {"unit": "household", "outside": "exclude"}, customers)
    assert outcomes(batch)["c-1"] == "outside/no_unit"


def test_a_unit_of_numbers_is_hashed_as_its_digits(tmp_path: Path) -> None:
    customers = any_customers(50, household=[float(n) if n % 5 else None for n in range(50)])
    plan, batch = launched(tmp_path, {"unit": "household"}, customers)
    ranges = bucket_ranges(2, 1.0, [0.3, 0.7])
    found = variants(plan, batch)
    assert all(found[f"c-{n}"] == "ab"[choose(ranges, bucket("growthbook/2", "split", n))] for n in range(50) if n % 5)


def sticky_file(path: Path, *rows: tuple[str, str, int]) -> str:
    table = [{"experiment": "split", "unit": u, "variant": v, "bucket_version": n} for u, v, n in rows]
    pq.write_table(pa.Table.from_pylist(table), path)
    return str(path)


def test_an_earlier_assignment_wins_over_the_hash_and_the_coverage(tmp_path: Path) -> None:
    plan, before = launched(tmp_path / "x", {})
    other = {"a": "b", "b": "a"}
    kept = {one: other[str(variant)] for one, variant in list(variants(plan, before).items())[:300]}
    file = sticky_file(tmp_path / "sticky.parquet", *((one, variant, 0) for one, variant in kept.items()))
    plan, batch = launched(tmp_path / "y", {"sticky": True, "coverage": 0.1}, sticky=file)
    found = variants(plan, batch)
    assert {one: found[one] for one in kept} == kept
    assert (batch.campaigns[0].assigned_by == BY_STICKY).sum() == 300


def test_a_new_bucket_version_assigns_anew_and_an_old_one_takes_out(tmp_path: Path) -> None:
    file = sticky_file(tmp_path / "sticky.parquet", ("c-0", "a", 0), ("c-1", "b", 2), ("c-2", "gone", 3))
    changes = {"sticky": True, "bucket_version": 3, "min_bucket_version": 1, "outside": "exclude"}
    plan, batch = launched(tmp_path, changes, any_customers(6), sticky=file)
    ranges = bucket_ranges(2, 1.0, [0.3, 0.7])
    hashed = {one: "ab"[choose(ranges, bucket("growthbook/2", "split", one))] for one in ("c-1", "c-2")}
    assert outcomes(batch)["c-0"] == "outside/min_bucket_version"
    assert {one: variants(plan, batch)[one] for one in hashed} == hashed


def test_a_forced_variant_passes_every_holdout_but_not_consent(tmp_path: Path) -> None:
    engine = any_engine(holdouts={"global": {"share": 1.0}})
    customers = any_customers(4, email_consent=[True, False, True, True])
    plan, batch = launched(tmp_path, {"force": {"c-0": "b", "c-1": "a"}}, customers, engine=engine)
    found = outcomes(batch)
    assert found == {
        "c-0": "emitted",
        "c-1": "suppressed/no_consent",
        "c-2": "held_out/global",
        "c-3": "held_out/global",
    }
    assert variants(plan, batch)["c-0"] == "b"
    forced = dict(zip(batch.campaigns[0].customer.to_pylist(), batch.campaigns[0].assigned_by.tolist(), strict=True))
    assert forced["c-0"] == BY_FORCE
