"""AssignVariants: holdouts, namespace, coverage and variant, in that order, for whole columns of customers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaigns.campaign import Campaign, Experiment, Namespace
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch
from schemas.outcomes import BY_FORCE, BY_HASH, BY_STICKY, EMITTED, code
from transforms.columnar.id_index import IdIndex
from transforms.columnar.steps import BatchStep
from transforms.experiments.assignment import scheme_ranges
from transforms.experiments.hash_schemes_arrow import (
    bucket_column,
    bucket_column_each,
    choose_column,
    in_ranges_column,
    normalise_column,
)
from transforms.plan import Plan
from transforms.warnings.evidence import FORCED

HOLDOUT_SCHEME = "growthbook/2"


@dataclass(frozen=True)
class Sticky:
    """The earlier assignments of one experiment."""

    units: IdIndex
    variants: pa.Array
    bucket_versions: Ints
    first: str = ""

    @classmethod
    def of(cls, table: pa.Table, experiment: str) -> Sticky:
        """The assignments of an experiment in a table of (experiment, unit, variant, bucket_version)."""
        own = table.filter(pc.equal(table["experiment"], experiment)).combine_chunks()
        units = own["unit"].combine_chunks()
        first = str(units[0]) if len(units) else ""
        return cls(IdIndex.build(units), own["variant"].combine_chunks(), own["bucket_version"].to_numpy(), first)


def units_of(batch: LaunchBatch, column: str, rows: Ints) -> pa.Array:
    """The texts that are hashed for a column of units."""
    return batch.column(column, rows)


class VariantAssigner:
    """Assigns the variants of a batch; `sticky` by experiment key."""

    def __init__(self, plan: Plan, sticky: Mapping[str, Sticky]) -> None:
        self._plan = plan
        self._holdouts = plan.engine.holdouts
        self._sticky = sticky

    def assign(self, batch: LaunchBatch) -> LaunchBatch:
        """The batch with outcome, bucket and variant of every matched customer."""
        held = self._held(batch)
        batch.counts["sticky"] = self._kept(batch)
        batch.counts["evidence"] = [*batch.counts.get("evidence", ()), *self._forced(batch)]
        return replace(batch, campaigns=[self._campaign(batch, rows, held) for rows in batch.campaigns])

    def _forced(self, batch: LaunchBatch) -> Iterator[list[Any]]:
        """A row of evidence for each unit that an experiment forces and a customer of the batch has."""
        every = np.arange(batch.rows.num_rows)
        for campaign in (entry.campaign for entry in self._plan.campaigns):
            if campaign.experiment and campaign.experiment.force:
                units = units_of(batch, campaign.experiment.unit, every)
                known = units.filter(pc.is_in(units, pa.array(list(campaign.experiment.force), pa.string())))
                for unit in pc.value_counts(known).to_pylist():
                    yield [FORCED, campaign.id, "experiment.force", unit["values"], unit["counts"], "", ""]

    def _kept(self, batch: LaunchBatch) -> list[list[Any]]:
        """Of each experiment with earlier assignments: its key, how many, the first unit, the customers with one."""
        every = np.arange(batch.rows.num_rows)
        units = {e.key: e.unit for entry in self._plan.campaigns if (e := entry.campaign.experiment)}
        return [
            [key, len(kept.units), kept.first, int(kept.units.contains(units_of(batch, units[key], every)).sum())]
            for key, kept in self._sticky.items()
            if len(kept.units)
        ]

    def _held(self, batch: LaunchBatch) -> np.ndarray:
        """The code of the global or the retailer's holdout for each customer that some campaign matched."""
        held = np.full(batch.rows.num_rows, EMITTED, np.uint8)
        rules = self._holdouts
        if (not rules.global_.share and not rules.retailers) or not batch.campaigns:
            return held
        rows = batch.matched()
        units = units_of(batch, rules.global_.unit, rows)
        seed = rules.global_.seed
        found = np.full(len(rows), EMITTED, np.uint8)
        shares = [rules.retailers.get(name, rules.retailers.get("*", 0.0)) for name in batch.retailers]
        share = np.array(shares, np.float64)[batch.retailer[rows]]
        if share.any():
            seeds = [f"{seed}:{retailer}" for retailer in batch.retailers]
            found[bucket_column_each(seeds, batch.retailer[rows], units) < share] = code("held_out", "retailer")
        found[bucket_column(HOLDOUT_SCHEME, seed, units) < rules.global_.share] = code("held_out", "global")
        held[rows] = found
        return held

    def _campaign(self, batch: LaunchBatch, rows: CampaignRows, held: np.ndarray) -> CampaignRows:
        campaign = self._plan.of(rows.campaign).campaign
        outcome = held[rows.rows]
        if campaign.experiment is None:
            return replace(rows, outcome=outcome)
        return _Split(campaign, campaign.experiment, batch, rows, outcome).done(self._sticky)


class _Split:
    """One campaign's rows on their way through its experiment; `inside` are those not yet decided."""

    def __init__(
        self, campaign: Campaign, experiment: Experiment, batch: LaunchBatch, rows: CampaignRows, outcome: np.ndarray
    ) -> None:
        self._experiment = experiment
        self._batch, self._rows = batch, rows
        self._outcome = outcome
        self._inside: Bools = outcome == EMITTED
        self._units = units_of(batch, experiment.unit, rows.rows)
        self._variant = np.full(len(rows.rows), -1, np.int16)
        self._by = np.zeros(len(rows.rows), np.uint8)

    def done(self, sticky: Mapping[str, Sticky]) -> CampaignRows:
        """The rows after: sticky, unit, namespace, campaign holdout, coverage, variant, forced."""
        experiment, units = self._experiment, self._units
        seed = experiment.seed or experiment.key
        buckets = bucket_column(experiment.hash, seed, units)
        weights = experiment.weights
        chosen = choose_column(scheme_ranges(experiment.hash, len(weights), experiment.coverage, weights), buckets)
        kept = self._kept(sticky.get(experiment.key)) if experiment.sticky else np.full(len(units), -1, np.int16)
        self._outside(np.asarray(pc.fill_null(pc.equal(pc.binary_length(units), 0), True)), "no_unit")
        if experiment.namespace is not None:
            self._outside(~self._in_namespace(experiment.namespace) & (kept < 0), "namespace")
        if experiment.holdout:
            share = bucket_column(HOLDOUT_SCHEME, f"{experiment.key}:holdout", units)
            self._decide(share < experiment.holdout, code("held_out", "campaign"))
        self._outside((chosen < 0) & (kept < 0), "coverage")
        self._give(self._inside, np.where(kept >= 0, kept, chosen), np.where(kept >= 0, BY_STICKY, BY_HASH))
        self._force(experiment)
        return replace(
            self._rows,
            outcome=self._outcome,
            bucket=normalise_column(experiment.hash, buckets),
            variant=self._variant,
            assigned_by=self._by,
        )

    def _decide(self, mask: Bools, outcome: int) -> None:
        self._outcome[self._inside & mask] = outcome
        self._inside = self._inside & ~mask

    def _outside(self, mask: Bools, reason: str) -> None:
        """Outside the experiment: sent the default content, or nothing."""
        included = self._experiment.outside == "include"
        self._decide(mask, EMITTED if included else code("outside", reason))

    def _give(self, mask: Bools, variant: np.ndarray, by: np.ndarray | int) -> None:
        self._variant = np.where(mask, variant, self._variant).astype(np.int16)
        self._by = np.where(mask, by, self._by).astype(np.uint8)

    def _kept(self, sticky: Sticky | None) -> np.ndarray:
        """The variant of an earlier assignment that still counts, -1 for none."""
        none = np.full(len(self._units), -1, np.int16)
        if sticky is None:
            return none
        place = sticky.units.find(self._units)
        version = np.where(place < 0, 0, sticky.bucket_versions[place]) if len(sticky.variants) else none * 0
        self._outside((place >= 0) & (version < self._experiment.min_bucket_version), "min_bucket_version")
        keys = [variant.key for variant in self._experiment.variants]
        code_of = pc.fill_null(pc.index_in(sticky.variants, pa.array(keys, pa.string())), -1).to_numpy()
        same = (place >= 0) & (version == self._experiment.bucket_version)
        return np.where(same, code_of[place] if len(code_of) else -1, none).astype(np.int16)

    def _in_namespace(self, namespace: Namespace) -> Bools:
        units = units_of(self._batch, namespace.unit, self._rows.rows) if namespace.unit else self._units
        return in_ranges_column(*namespace.hashing, units, namespace.all_ranges)

    def _force(self, experiment: Experiment) -> None:
        """Forced variants are for trying out: they pass every holdout, and never count."""
        keys = [variant.key for variant in experiment.variants]
        for unit, variant in experiment.force.items():
            mask = np.asarray(pc.fill_null(pc.equal(self._units, unit), False))
            self._give(mask, np.full(len(mask), keys.index(variant)), BY_FORCE)
            self._outcome = np.where(mask, EMITTED, self._outcome).astype(np.uint8)


class AssignVariants(BatchStep):
    """LaunchBatches with holdouts and variants."""

    stage = "assignment"
