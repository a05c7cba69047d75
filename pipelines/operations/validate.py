"""Validate a folder of campaigns: its files, its workspaces, and with customers their columns and retailers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from connectors.inputs.lists import list_problems
from pipelines.launch.input_warnings import input_warnings
from pipelines.rebatch.delivery_files import check_delivery
from schemas.campaigns.accounts import configured_retailers
from schemas.campaigns.configuration import load_configuration, load_engine
from schemas.problems import InputError
from stores.launches.snapshot import distinct_values, source_schema
from transforms.launch_plan import id_columns, make_plan
from transforms.warnings.warning import refusal


class Validated(msgspec.Struct):
    """A sound folder: its campaigns and named audiences, the customers' retailers whose accounts were checked, the use
    of its lists, and its warnings (the last two as in summary.json)."""

    campaigns: list[str]
    audiences: list[str]
    retailers: list[str]
    lists: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


def validate(campaigns: str, customers: str | None, strict: bool) -> Validated:
    """Check the folder, and against the customers if given. Raises InputError with every mistake; with `strict`, here
    or in engine.yaml, a warning is one too."""
    root, retailers = Path(campaigns), set[str]()
    config, problems = load_configuration(root)
    engine = config.engine if config is not None else load_engine(root)[0]
    if config is not None:
        problems += list_problems(root, config.lists)
        if customers:
            schema = source_schema(customers, id_columns(config))
            problems += make_plan(config, schema, "validate", 0)[1]
            column = config.engine.columns.retailer
            if config.engine.delivery.vendor != "outbox" and column in schema.names:  # the others have no accounts
                retailers = distinct_values(customers, column)
    if engine is not None:
        problems += check_delivery(root, engine, {*configured_retailers(engine), *retailers}, None)
    if problems or config is None:
        raise InputError(problems)
    warnings, lists = input_warnings(config, customers)
    if warnings and (strict or config.engine.strict):
        raise refusal(warnings)
    names = [campaign.id for campaign in config.campaigns]
    return Validated(names, sorted(config.audiences), sorted(retailers), lists, warnings)
