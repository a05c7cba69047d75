"""What each step of a launch needs in its worker process, made there: connections, lists, histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.inputs.histories import SCHEMA as HISTORY
from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_codes, read_list
from connectors.inputs.sticky import read_sticky
from connectors.kafka.client import KafkaClient
from connectors.open import open_sink
from connectors.uri import SinkUri
from pipelines.launch.inputs import code_secret, secret_mark
from schemas.elements import CustomerBatch, LaunchBatch
from schemas.problems import JobError
from stores.launches.survey_results import read_duplicates, read_losers, read_queues
from transforms.audience.evaluate import Evaluator, evaluate_batch
from transforms.columnar.id_index import joined_key
from transforms.columnar.list_index import ListIndex
from transforms.events.build_events import build_events
from transforms.events.publish_events import EventSink
from transforms.experiments.assign_variants import Sticky, VariantAssigner
from transforms.offers.generate import Limit, OfferGenerator
from transforms.plan import Plan
from transforms.suppression.frequency_caps import SendHistory
from transforms.suppression.suppress import Suppressor


def make_evaluator(plan: Plan, survey: Path) -> Callable[[CustomerBatch], LaunchBatch]:
    """EvaluateAudience's work."""
    evaluator = Evaluator(plan, lambda name, column: read_list(Path(plan.root) / name, column, name))
    return partial(evaluate_batch, plan, evaluator, read_duplicates(survey))


def make_assigner(plan: Plan, sticky: str | None) -> Callable[[LaunchBatch], LaunchBatch]:
    """AssignVariants' work."""
    experiments = [entry.campaign.experiment for entry in plan.campaigns]
    table = read_sticky(sticky) if sticky else None
    kept = {e.key: Sticky.of(table, e.key) for e in experiments if e and e.sticky and table is not None}
    return VariantAssigner(plan, kept).assign


def make_suppressor(plan: Plan, history: tuple[str, ...], survey: Path | None) -> Callable[[LaunchBatch], LaunchBatch]:
    """Suppress' work; without a survey nobody is preferred to anybody yet."""
    lists = tuple(
        (
            entry.channel,
            entry.column,
            ListIndex.build(read_list(Path(plan.root) / entry.file, entry.column), entry.column, plan.engine),
        )
        for entry in plan.engine.suppression_lists
    )
    histories = _histories(plan, history) if plan.engine.caps else {}
    return Suppressor(plan, lists, histories, read_losers(survey) if survey else {}).suppress


def _histories(plan: Plan, sources: tuple[str, ...]) -> dict[str, SendHistory]:
    columns = plan.engine.columns
    tables = read_histories(sources, (columns.retailer, columns.customer))
    table = pa.concat_tables([HISTORY.empty_table(), *tables])
    found = {}
    used = {entry.campaign.channel for entry in plan.campaigns}
    for channel in used & {cap.channel for cap in plan.engine.caps}:
        sends = table.filter(pc.equal(table["channel"], channel)).combine_chunks()
        keys = joined_key(_one(sends["retailer"]), _one(sends["customer"]))
        first = f"{sends['customer'][0]} of {sends['retailer'][0]}" if len(keys) else ""
        found[channel] = SendHistory(keys, sends["sent_at"].to_numpy(), first)
    return found


def _one(column: Any) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def make_generator(
    plan: Plan, sizes: Mapping[tuple[str, str], int], survey: Path, secrets: str | None = None, mark: str | None = None
) -> Callable[[LaunchBatch], LaunchBatch]:
    """GenerateOffers' work. Raises JobError when the secret of the codes is not the one that `mark` is of."""
    secret = code_secret(plan.engine.code_secret, secrets if mark else None)
    if mark and secret_mark(secret) != mark:
        happened = f"{plan.engine.code_secret} is not, on this worker, the secret that the launch was started with"
        raise JobError(f"{happened}. Give every worker the same one, or the secret of --secrets the same value")
    files = {offer.codes for entry in plan.campaigns for offer in entry.campaign.offers if offer.codes}
    codes = {name: read_codes(Path(plan.root) / name, name) for name in files}
    return OfferGenerator(plan, secret, offer_limits(plan, sizes, survey), codes).generate


def offer_limits(plan: Plan, sizes: Mapping[tuple[str, str], int], survey: Path) -> dict[tuple[str, str], Limit]:
    """How far each limited offer reaches, by (campaign, offer), as the survey has decided."""
    queues = read_queues(survey)
    listed = {(entry.campaign.id, o.id) for entry in plan.campaigns for o in entry.campaign.offers if o.codes}
    return {key: Limit(size, queues[key], key in listed) for key, size in sizes.items()}


def make_events(plan: Plan) -> Callable[[LaunchBatch], Any]:
    """BuildEvents' work."""
    return partial(build_events, plan)


def make_sink(events: SinkUri, wait: float, kafka: KafkaClient) -> EventSink:
    """The sink of PublishEvents; it fails when nothing is published for `wait` seconds."""
    return open_sink(events, kafka, wait)
