"""Warnings about the configuration and the names of the customers' columns; they need no customers."""

from __future__ import annotations

import pyarrow as pa

from schemas.campaigns.configuration import Configuration, used_audiences
from transforms.audience.conditions import CLOCKS, LAUNCHED_AT
from transforms.warnings.warning import LaunchWarning


def unused_audiences(config: Configuration) -> list[LaunchWarning]:
    """A warning for each named audience that no campaign uses, directly or through another."""
    fix = "No campaign uses this audience. Name it in a campaign ({audience: NAME}), or remove the file."
    return [
        LaunchWarning(
            "audience_unused", "", f"audiences/{name}.yaml", "audience", name, 0, "", fix.replace("NAME", name)
        )
        for name in sorted(config.audiences.keys() - used_audiences(config))
    ]


def shadowed_names(schema: pa.Schema) -> list[LaunchWarning]:
    """A warning for each column of the customers with the name of a built-in of SQL or of conditions."""
    warnings = []
    for name in schema.names:
        if name.lower() == LAUNCHED_AT:
            fix = "Conditions and properties read the time of the launch under this name, not the column. Rename it."
        elif name.lower() in CLOCKS:
            fix = f"Conditions and properties read this column, not the {name} of SQL. Rename it."
        else:
            continue
        warnings.append(LaunchWarning("built_in_name", "", "--customers", "column", name, 1, "", fix))
    return warnings
