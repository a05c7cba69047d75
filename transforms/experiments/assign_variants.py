"""AssignVariants: holdouts, namespace, coverage and variant, in that order, for whole columns of customers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaigns.campaign import Experiment, Namespace
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch
from schemas.outcomes import BY_FORCE, BY_HASH, BY_STICKY, EMITTED, code
from transforms.columnar.id_index import IdIndex
from transforms.columnar.steps import MapBatches
from transforms.experiments.assignment import scheme_ranges
from transforms.experiments.hash_schemes_arrow import (
    bucket_column,
    bucket_column_each,
    choose_column,
    in_ranges_column,
    normalise_column,
)
from transforms.launch_plan import Plan
from transforms.warnings.evidence import FORCED

HOLDOUT_SCHEME = "growthbook/2"
ReadSticky = Callable[[], pa.Table | None]


class AssignVariants(MapBatches):
    """LaunchBatches with the holdouts and variants of every matched customer.

    `read_sticky` reads the earlier assignments once a worker: a table of (experiment, unit, variant, bucket_version),
    or None.
    """

    def __init__(self, plan: Plan, read_sticky: ReadSticky) -> None:
        super().__init__("assignment", partial(make_assigner, plan, read_sticky))


def make_assigner(plan: Plan, read_sticky: ReadSticky = lambda: None) -> Callable[[LaunchBatch], LaunchBatch]:
    """`assign_variants` of a plan, with the earlier assignments of its sticky experiments indexed."""
    experiments = [entry.campaign.experiment for entry in plan.campaigns]
    table = read_sticky()
    sticky = {e.key: Sticky.of(table, e.key) for e in experiments if e and e.sticky and table is not None}
    return partial(assign_variants, plan, sticky)


def assign_variants(plan: Plan, sticky: Mapping[str, Sticky], batch: LaunchBatch) -> LaunchBatch:
    """The batch with outcome, bucket and variant of every matched customer.

    `sticky` are the earlier assignments by experiment key. Counts `sticky`: of each such experiment its key, the
    number of assignments, the first unit, and the customers that have one; and in `evidence` the forced units.
    """
    holdouts = _holdouts(plan, batch)
    campaigns = [_assign_campaign(plan, sticky, batch, rows, holdouts) for rows in batch.campaigns]
    evidence = [*batch.counts.get("evidence", ()), *_forced_units(plan, batch)]
    counted = batch.with_counts(sticky=_sticky_counts(plan, sticky, batch), evidence=evidence)
    return replace(counted, campaigns=campaigns)


def _forced_units(plan: Plan, batch: LaunchBatch) -> Iterator[list[Any]]:
    """A row of evidence for each unit that an experiment forces and a customer of the batch has."""
    rows = np.arange(batch.rows.num_rows)
    for campaign in (entry.campaign for entry in plan.campaigns):
        if campaign.experiment and campaign.experiment.force:
            units = batch.column(campaign.experiment.unit, rows)
            forced = units.filter(pc.is_in(units, pa.array(list(campaign.experiment.force), pa.string())))
            for unit in pc.value_counts(forced).to_pylist():
                yield [FORCED, campaign.id, "experiment.force", unit["values"], unit["counts"], "", ""]


@dataclass(frozen=True)
class Sticky:
    """The earlier assignments of one experiment: `variants` and `bucket_versions` at the position of each unit."""

    units: IdIndex
    variants: pa.Array
    bucket_versions: Ints
    first: str = ""

    @classmethod
    def of(cls, table: pa.Table, experiment: str) -> Sticky:
        """The assignments of an experiment in a table of (experiment, unit, variant, bucket_version)."""
        rows = table.filter(pc.equal(table["experiment"], experiment)).combine_chunks()
        units = rows["unit"].combine_chunks()
        first = str(units[0]) if len(units) else ""
        return cls(IdIndex(units), rows["variant"].combine_chunks(), rows["bucket_version"].to_numpy(), first)


def _sticky_counts(plan: Plan, sticky: Mapping[str, Sticky], batch: LaunchBatch) -> list[list[Any]]:
    rows = np.arange(batch.rows.num_rows)
    units = {e.key: e.unit for entry in plan.campaigns if (e := entry.campaign.experiment)}
    return [
        [key, len(entries.units), entries.first, int(entries.units.contains(batch.column(units[key], rows)).sum())]
        for key, entries in sticky.items()
        if len(entries.units)
    ]


def _holdouts(plan: Plan, batch: LaunchBatch) -> np.ndarray:
    """The outcome of the global and the retailers' holdout for each row; EMITTED for who is in none or not matched."""
    outcome = np.full(batch.rows.num_rows, EMITTED, np.uint8)
    holdouts = plan.engine.holdouts
    if (not holdouts.global_.share and not holdouts.retailers) or not batch.campaigns:
        return outcome
    rows = batch.matched()
    units, seed = batch.column(holdouts.global_.unit, rows), holdouts.global_.seed
    matched = np.full(len(rows), EMITTED, np.uint8)
    shares = [holdouts.retailers.get(name, holdouts.retailers.get("*", 0.0)) for name in batch.retailers]
    share = np.array(shares, np.float64)[batch.retailer[rows]]
    if share.any():
        seeds = [f"{seed}:{retailer}" for retailer in batch.retailers]
        matched[bucket_column_each(seeds, batch.retailer[rows], units) < share] = code("held_out", "retailer")
    matched[bucket_column(HOLDOUT_SCHEME, seed, units) < holdouts.global_.share] = code("held_out", "global")
    outcome[rows] = matched
    return outcome


def _assign_campaign(
    plan: Plan, sticky: Mapping[str, Sticky], batch: LaunchBatch, rows: CampaignRows, holdouts: np.ndarray
) -> CampaignRows:
    experiment = plan.campaign_plan(rows.campaign).campaign.experiment
    outcome = holdouts[rows.rows]
    if experiment is None:
        return replace(rows, outcome=outcome)
    earlier = sticky.get(experiment.key) if experiment.sticky else None
    return _Assignment(experiment, batch, rows, outcome).assign(earlier)


class _Assignment:
    """The assignment of one campaign's rows; `undecided` are the rows for which no rule held so far. Takes over the
    array `outcome`."""

    def __init__(self, experiment: Experiment, batch: LaunchBatch, rows: CampaignRows, outcome: np.ndarray) -> None:
        self._experiment = experiment
        self._batch, self._rows = batch, rows
        self._outcome = outcome
        self._undecided: Bools = outcome == EMITTED
        self._units = batch.column(experiment.unit, rows.rows)
        self._variant = np.full(len(rows.rows), -1, np.int16)
        self._assigned_by = np.zeros(len(rows.rows), np.uint8)

    def assign(self, sticky: Sticky | None) -> CampaignRows:
        """The assigned rows, by these rules: sticky, unit, namespace, campaign holdout, coverage, variant, forced."""
        experiment, units = self._experiment, self._units
        seed = experiment.seed or experiment.key
        buckets = bucket_column(experiment.hash, seed, units)
        weights = experiment.weights
        chosen = choose_column(scheme_ranges(experiment.hash, len(weights), experiment.coverage, weights), buckets)
        earlier = self._earlier_variants(sticky)
        self._leave_outside(np.asarray(pc.fill_null(pc.equal(pc.binary_length(units), 0), True)), "no_unit")
        if experiment.namespace is not None:
            self._leave_outside(~self._in_namespace(experiment.namespace) & (earlier < 0), "namespace")
        if experiment.holdout:
            share = bucket_column(HOLDOUT_SCHEME, f"{experiment.key}:holdout", units)
            self._decide(share < experiment.holdout, code("held_out", "campaign"))
        self._leave_outside((chosen < 0) & (earlier < 0), "coverage")
        keep = earlier >= 0
        self._set_variant(self._undecided, np.where(keep, earlier, chosen), np.where(keep, BY_STICKY, BY_HASH))
        self._force(experiment)
        return replace(
            self._rows,
            outcome=self._outcome,
            bucket=normalise_column(experiment.hash, buckets),
            variant=self._variant,
            assigned_by=self._assigned_by,
        )

    def _decide(self, mask: Bools, outcome: int) -> None:
        self._outcome[self._undecided & mask] = outcome
        self._undecided = self._undecided & ~mask

    def _leave_outside(self, mask: Bools, reason: str) -> None:
        """Leave rows outside the experiment: they are sent the default content, or nothing (`outside: exclude`)."""
        include = self._experiment.outside == "include"
        self._decide(mask, EMITTED if include else code("outside", reason))

    def _set_variant(self, mask: Bools, variant: np.ndarray, by: np.ndarray | int) -> None:
        self._variant = np.where(mask, variant, self._variant).astype(np.int16)
        self._assigned_by = np.where(mask, by, self._assigned_by).astype(np.uint8)

    def _earlier_variants(self, sticky: Sticky | None) -> np.ndarray:
        """The variant of the earlier assignment that is kept, -1 for none. An assignment below `min_bucket_version`
        leaves the unit outside."""
        none = np.full(len(self._units), -1, np.int16)
        if sticky is None:
            return none
        place = sticky.units.find(self._units)
        version = np.where(place < 0, 0, sticky.bucket_versions[place]) if len(sticky.variants) else none * 0
        self._leave_outside((place >= 0) & (version < self._experiment.min_bucket_version), "min_bucket_version")
        keys = [variant.key for variant in self._experiment.variants]
        numbers = pc.fill_null(pc.index_in(sticky.variants, pa.array(keys, pa.string())), -1).to_numpy()
        keep = (place >= 0) & (version == self._experiment.bucket_version)
        return np.where(keep, numbers[place] if len(numbers) else -1, none).astype(np.int16)

    def _in_namespace(self, namespace: Namespace) -> Bools:
        units = self._batch.column(namespace.unit, self._rows.rows) if namespace.unit else self._units
        return in_ranges_column(*namespace.hashing, units, namespace.all_ranges)

    def _force(self, experiment: Experiment) -> None:
        """Assign the variants that the campaign forces on units, for trials: no holdout applies, no test counts it."""
        keys = [variant.key for variant in experiment.variants]
        for unit, variant in experiment.force.items():
            mask = np.asarray(pc.fill_null(pc.equal(self._units, unit), False))
            self._set_variant(mask, np.full(len(mask), keys.index(variant)), BY_FORCE)
            self._outcome = np.where(mask, EMITTED, self._outcome).astype(np.uint8)
