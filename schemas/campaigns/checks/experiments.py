"""Experiments that could not be trusted: namespaces that do not exclude, and variants that are not cut alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from schemas.campaigns.campaign import Campaign, Experiment, Namespace, Offer
from schemas.campaigns.yaml_files import Document
from schemas.problems import Problem

Read = tuple[Document, Campaign]
_NAMESPACE = ("experiment", "namespace")


def experiment_problems(campaigns: list[Read]) -> list[Problem]:
    """A problem for each pair of experiments that share a namespace wrongly, and for each offer that suppresses some of
    an experiment's variants alone."""
    problems = [problem for document, campaign in campaigns for problem in _unequal_arms(document, campaign)]
    return [*problems, *_namespaces(campaigns), *_redefined(campaigns)]


def _unequal_arms(document: Document, campaign: Campaign) -> Iterator[Problem]:
    for index, offer in enumerate(campaign.offers):
        place, experiment = ("offers", index, "on_exhausted"), campaign.experiment
        having = [variant.key for variant in experiment.variants if offer.id in variant.offers] if experiment else []
        if offer.on_exhausted == "suppress_all_variants" and not having:
            fix = "no variant of an experiment has this offer; write `suppress`"
            yield document.problem(place, offer.on_exhausted, fix)
        if offer.on_exhausted == "suppress" and experiment and 0 < len(having) < len(experiment.variants):
            yield document.problem(place, offer.on_exhausted, _remedy(offer, experiment, having))


def _remedy(offer: Offer, experiment: Experiment, having: list[str]) -> str:
    others = [variant.key for variant in experiment.variants if variant.key not in having]
    return (
        f"when {offer.id!r} runs out, the {_variants(having)} would lose customers and the {_variants(others)} none: "
        f"the experiment {experiment.key!r} could not be evaluated. Write `suppress_all_variants`, which cuts every "
        "variant at the same place of the hash order, or `without` or `fallback`, which send to all"
    )


def _variants(keys: list[str]) -> str:
    return f"variant{'s' if len(keys) > 1 else ''} {', '.join(map(repr, keys))}"


class _Use(NamedTuple):
    """One experiment's part of a namespace, and how the namespace is hashed for it."""

    document: Document
    experiment: Experiment
    namespace: Namespace

    @property
    def hashing(self) -> dict[str, tuple[str, str]]:
        """What must be the same over all experiments of a namespace: by field, the value and how it is shown."""
        scheme, seed = self.namespace.hashing
        form = "`range` without a seed" if scheme == "growthbook/1" else "`ranges`, or `range` with a seed"
        return {
            "range" if self.namespace.range else "ranges": ("hash", f"{scheme} ({form})"),
            "seed": ("seed", seed),
            "unit": ("unit", self.namespace.unit or self.experiment.unit),
        }


def _namespaces(campaigns: list[Read]) -> Iterator[Problem]:
    before: dict[str, list[_Use]] = {}
    for document, campaign in campaigns:
        experiment = campaign.experiment
        if experiment is not None and experiment.namespace is not None:
            use = _Use(document, experiment, experiment.namespace)
            for other in before.setdefault(use.namespace.key, []):
                yield from _differences(use, other) or _overlaps(use, other)
            before[use.namespace.key].append(use)


def _redefined(campaigns: list[Read]) -> Iterator[Problem]:
    """The experiments of one key that do not split the customers alike."""
    first: dict[str, tuple[Document, Experiment]] = {}
    for document, campaign in campaigns:
        if (experiment := campaign.experiment) is None:
            continue
        other_document, other = first.setdefault(experiment.key, (document, experiment))
        if not _same(experiment, other):
            fix = (
                f"{other_document.file} runs an experiment of this key that splits the customers otherwise: a customer "
                "could be in two variants of it. Write the same experiment in both, or give one a key of its own"
            )
            yield document.problem(("experiment", "key"), experiment.key, fix)


def _differences(use: _Use, other: _Use) -> list[Problem]:
    """Where two experiments place the customers of one namespace by different hashes; only the first difference."""
    pairs = zip(use.hashing.items(), other.hashing.items(), strict=True)
    for (field, (what, ours)), (other_field, (_, theirs)) in pairs:
        if ours != theirs:
            fix = (
                f"the namespace {use.namespace.key!r} has the {what} {ours} here and the {what} {theirs} in "
                f"{other.document.file} (experiment.namespace.{other_field}): a customer could be in both experiments. "
                "Write the same in both, or give one of them a key of its own"
            )
            return [use.document.problem((*_NAMESPACE, field), ours, fix)]
    return []


def _overlaps(use: _Use, other: _Use) -> list[Problem]:
    if _same(use.experiment, other.experiment):
        return []
    for ours in use.namespace.all_ranges:
        for theirs in other.namespace.all_ranges:
            low, high = max(ours[0], theirs[0]), min(ours[1], theirs[1])
            if low < high:
                fields = ["range" if user.namespace.range else "ranges" for user in (use, other)]
                fix = (
                    f"overlaps {list(theirs)} of {other.document.file} (experiment.namespace.{fields[1]}): customers "
                    f"from {low:g} to {high:g} of the namespace {use.namespace.key!r} would be in both experiments. "
                    "Take a range that is free, or another key"
                )
                return [use.document.problem((*_NAMESPACE, fields[0]), str(list(ours)), fix)]
    return []


def _same(first: Experiment, second: Experiment) -> bool:
    """Whether two campaigns run one experiment: everybody has the same variant in both."""

    def split(experiment: Experiment) -> tuple[object, ...]:
        variants = [variant.key for variant in experiment.variants]
        return (experiment.key, experiment.seed or experiment.key, experiment.hash, experiment.unit,
                experiment.coverage, experiment.namespace, variants, experiment.weights)  # fmt: skip

    return split(first) == split(second)
