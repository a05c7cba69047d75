"""make_plan: binds the campaigns to the customers' columns and finds every mistake before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa

from schemas.campaigns.campaign import Campaign
from schemas.campaigns.configuration import Configuration
from schemas.campaigns.engine import EngineConfig
from schemas.columns.ids import id_type_problem, is_text
from schemas.problems import Problem
from transforms.audience.conditions import Checker
from transforms.audience.tree import MAX_LEVELS, Leaf, Tree, campaign_tree, is_too_deep
from transforms.warnings.configuration import ended_campaigns, shadowed_names, unused_audiences
from transforms.warnings.warning import LaunchWarning

MARKETPLACE = "marketplace"
_VALUE_TYPES = {
    "BOOLEAN": "BOOLEAN", "TINYINT": "BIGINT", "SMALLINT": "BIGINT", "INTEGER": "BIGINT", "BIGINT": "BIGINT",
    "UTINYINT": "BIGINT", "USMALLINT": "BIGINT", "UINTEGER": "BIGINT", "FLOAT": "DOUBLE", "DOUBLE": "DOUBLE",
}  # fmt: skip


@dataclass(frozen=True)
class CampaignPlan:
    """One campaign with its version, its compiled audience and its file."""

    campaign: Campaign
    version: str
    tree: Tree
    file: str

    def covers(self, retailer: str) -> bool:
        """Whether the campaign is for a retailer's customers."""
        if (self.campaign.surface == MARKETPLACE) != (retailer == MARKETPLACE):
            return False
        return "*" in self.campaign.retailers or retailer in self.campaign.retailers

    def warning(self, kind: str, place: str, value: str, count: int, example: str, text: str) -> LaunchWarning:
        """A warning about a field of the campaign's file; `place` names another file before a colon and the field."""
        file, _, field = place.rpartition(": ")
        return LaunchWarning(kind, self.campaign.id, file or self.file, field, value, count, example, text)


@dataclass(frozen=True)
class Plan:
    """The configuration of a launch as every worker gets it; it holds no secret.

    `columns` are the customers' columns that are read, `id_columns` those of ids, units and addresses. `values` are the
    SQL types of the properties by their SQL, `offer_conditions` the SQL of the offers' conditions, `root` the folder of
    the campaigns, `warnings` those that need no customers.
    """

    launch_id: str
    launched_at: int
    test: bool
    engine: EngineConfig
    campaigns: tuple[CampaignPlan, ...]
    columns: tuple[str, ...]
    id_columns: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    offer_conditions: tuple[str, ...]
    values: dict[str, str]
    root: str
    warnings: tuple[LaunchWarning, ...] = ()

    @property
    def launched(self) -> datetime:
        """When the launch was first started, UTC."""
        return datetime.fromtimestamp(self.launched_at / 1000, UTC)

    def campaign_plan(self, campaign_id: str) -> CampaignPlan:
        """The plan of one campaign."""
        return next(plan for plan in self.campaigns if plan.campaign.id == campaign_id)


def make_plan(
    config: Configuration, schema: pa.Schema, launch_id: str, launched_at: int, test: bool = False
) -> tuple[Plan, list[Problem]]:
    """The plan, and every mistake in the SQL and the columns of the campaigns and of engine.yaml."""
    binder = _Binder(config, schema)
    campaigns = tuple(binder.bind_campaign(campaign) for campaign in config.campaigns)
    binder.bind_engine()
    leaves = tuple(dict.fromkeys(n.leaf for plan in campaigns for n in plan.tree.nodes() if n.leaf))
    conditions = dict.fromkeys(o.when for plan in campaigns for o in plan.campaign.offers if o.when)
    plan = Plan(
        launch_id=launch_id,
        launched_at=launched_at,
        test=test,
        engine=config.engine,
        campaigns=campaigns,
        columns=tuple(name for name in schema.names if name in binder.columns),
        id_columns=tuple(name for name in schema.names if name in binder.columns & binder.ids),
        leaves=leaves,
        offer_conditions=tuple(conditions),
        values=binder.values,
        root=str(config.root),
        warnings=(*unused_audiences(config), *ended_campaigns(config, launched_at), *shadowed_names(schema)),
    )
    return plan, binder.problems


def id_columns(config: Configuration) -> set[str]:
    """The columns whose values must be exact: ids of customers and retailers, units, addresses, columns of lists."""
    engine = config.engine
    names = {engine.columns.customer, engine.columns.retailer, *(column for _, column in config.lists if column)}
    if engine.holdouts.global_.share or engine.holdouts.retailers:
        names.add(engine.holdouts.global_.unit)
    for campaign in config.campaigns:
        if campaign.channel in engine.channels:
            names.add(engine.channels[campaign.channel].address)
        if campaign.experiment:
            namespace = campaign.experiment.namespace
            names |= {campaign.experiment.unit, *([namespace.unit] if namespace and namespace.unit else [])}
    return names


class _Binder:
    """Collects the columns that the configuration reads, the types of its properties, and its mistakes."""

    def __init__(self, config: Configuration, schema: pa.Schema) -> None:
        self._config = config
        self._schema = schema
        self._checker = Checker(schema)
        self.ids = id_columns(config)
        self.columns: set[str] = set()
        self.values: dict[str, str] = {}
        self.problems: list[Problem] = []

    def bind_campaign(self, campaign: Campaign) -> CampaignPlan:
        document = self._config.documents[campaign.id]
        for path, text in _conditions(document.data.get("audience"), ("audience",)):
            self._bind_expression(document.problem(path, text, ""), text)
        audience = campaign.audience
        if is_too_deep(audience, self._config.audiences):
            fix = f"has more than {MAX_LEVELS} levels, named audiences included; write fewer all, any and not"
            self.problems.append(document.problem(("audience",), "nested too deeply", fix))
            audience = "true"
        tree = campaign_tree(audience, self._config.audiences, _scope_label(campaign))
        named = {node.label for node in tree.nodes() if node.kind == "audience"}
        for name in sorted(named & self._config.audiences.keys()):
            shared = self._config.audiences[name]
            written = shared if isinstance(shared, str) else shared.model_dump(by_alias=True)
            for path, text in _conditions(written, ("audience",)):
                self._bind_expression(Problem(f"audiences/{name}.yaml", ".".join(map(str, path)), text, ""), text)
        for index, offer in enumerate(campaign.offers):
            if offer.when:
                self._bind_expression(document.problem(("offers", index, "when"), offer.when, ""), offer.when)
        for key, text in campaign.content.properties.items():
            problem = document.problem(("content", "properties", key), text, "")
            if self._bind_expression(problem, text, None):
                self.values[text] = _VALUE_TYPES.get(self._checker.type_of(text), "VARCHAR")
        if campaign.experiment:
            self._bind_column(document.problem(("experiment", "unit"), campaign.experiment.unit, ""))
            namespace = campaign.experiment.namespace
            if namespace and namespace.unit:
                self._bind_column(document.problem(("experiment", "namespace", "unit"), namespace.unit, ""))
        for node in tree.nodes():
            if node.leaf and node.leaf.column:
                self._bind_column(document.problem(("audience",), node.leaf.column, ""))
        return CampaignPlan(campaign, self._config.versions[campaign.id], tree, document.file)

    def bind_engine(self) -> None:
        engine = self._config.engine
        names = {"columns.customer": engine.columns.customer, "columns.retailer": engine.columns.retailer}
        if engine.columns.time_zone:
            names["columns.time_zone"] = engine.columns.time_zone
        if engine.holdouts.global_.share or engine.holdouts.retailers:
            names["holdouts.global.unit"] = engine.holdouts.global_.unit
        for index, entry in enumerate(engine.suppression_lists):
            names[f"suppression_lists.{index}.column"] = entry.column
        if engine.shared_address.column:
            names["shared_address.column"] = engine.shared_address.column
        for key in {campaign.channel for campaign in self._config.campaigns} & set(engine.channels):
            names[f"channels.{key}.address"] = engine.channels[key].address
            if consent := engine.channels[key].consent:
                names[f"channels.{key}.consent"] = consent
        for place, name in names.items():
            self._bind_column(Problem("engine.yaml", place, name, ""))
        self._check_types(names)

    def _check_types(self, names: dict[str, str]) -> None:
        for place, name in names.items():
            if name not in self._schema.names:
                continue
            kind = self._schema.field(name).type
            if place.endswith(".consent") and not pa.types.is_boolean(kind) and not pa.types.is_null(kind):
                fix = f"a consent is a BOOLEAN column, this is {kind}; convert it in the source"
                self.problems.append(Problem("engine.yaml", place, name, fix))
            text = kind.value_type if pa.types.is_dictionary(kind) else kind
            if place == "columns.time_zone" and not (is_text(text) or pa.types.is_null(text)):
                fix = f"a time zone is a text such as America/Chicago, this is {kind}; convert it in the source"
                self.problems.append(Problem("engine.yaml", place, name, fix))
            time = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
            numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or time
            if place == "shared_address.column" and not numeric:
                fix = f"must be a number or a time, this is {kind}"
                self.problems.append(Problem("engine.yaml", place, name, fix))

    def _bind_expression(self, problem: Problem, text: str, sql_type: str | None = "BOOLEAN") -> bool:
        if mistake := self._checker.check(text, sql_type):
            self.problems.append(problem._replace(fix=mistake.shown(text)))
            return False
        self.columns |= self._checker.columns(text)
        return True

    def _bind_column(self, problem: Problem) -> None:
        if problem.value in self._schema.names:
            self.columns.add(problem.value)
            fix = id_type_problem(self._schema.field(problem.value).type)
            if fix and problem.value in self.ids:
                self.problems.append(problem._replace(fix=fix))
        else:
            fix = f"the customers have no such column; there are: {', '.join(self._schema.names)}"
            self.problems.append(problem._replace(fix=fix))


def _conditions(raw: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The SQL texts of an audience as written in a file, with their paths in it."""
    if isinstance(raw, str):
        yield path, raw
    elif isinstance(raw, dict):
        for key in ("all", "any"):
            for index, child in enumerate(raw.get(key) or ()):
                yield from _conditions(child, (*path, key, index))
        yield from _conditions(raw.get("not"), (*path, "not"))


def _scope_label(campaign: Campaign) -> str:
    if campaign.surface == MARKETPLACE:
        return "customers of the marketplace"
    retailers = "every retailer" if "*" in campaign.retailers else ", ".join(campaign.retailers)
    return f"storefront customers of {retailers}"


def single_campaign(plan: Plan, campaign_id: str) -> Plan:
    """The plan with one of its campaigns."""
    entry = plan.campaign_plan(campaign_id)
    leaves = tuple(dict.fromkeys(node.leaf for node in entry.tree.nodes() if node.leaf))
    return replace(plan, campaigns=(entry,), leaves=leaves)
