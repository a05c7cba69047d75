"""Warnings about the configuration and the names of the customers' columns; they read no customers."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from schemas.campaigns.campaign import Schedule
from schemas.campaigns.configuration import Configuration, used_audiences
from transforms.audience.conditions import CLOCKS, LAUNCHED_AT
from transforms.events.send_time import send_time
from transforms.warnings.warning import LaunchWarning, join_names

_ZONES = [f"Etc/GMT{hours:+}" for hours in range(12, -15, -1)]
"""Every hour of wall time there is, the latest first."""


def unused_audiences(config: Configuration) -> list[LaunchWarning]:
    """A warning for each named audience that no campaign uses, directly or through another."""
    fix = "No campaign uses this audience. Name it in a campaign ({audience: NAME}), or remove the file."
    return [
        LaunchWarning(
            "audience_unused", "", f"audiences/{name}.yaml", "audience", name, 0, "", fix.replace("NAME", name)
        )
        for name in sorted(config.audiences.keys() - used_audiences(config))
    ]


def ended_campaigns(config: Configuration, launched_at: int) -> list[LaunchWarning]:
    """One warning for the campaigns that ended before the launch, wherever a customer is."""
    names = [campaign.id for campaign in config.campaigns if _has_ended(campaign.schedule, launched_at)]
    if not names:
        return []
    text = "The schedule of these campaigns ended before this launch, in every time zone: rebatch refuses their events "
    text += "as expired, unless it runs with --ignore_times. Correct start and expires, or leave the campaigns out."
    return [LaunchWarning("schedule_ended", "", "--campaigns", "schedule", join_names(names), len(names), "", text)]


def _has_ended(schedule: Schedule, launched_at: int) -> bool:
    start = schedule.start or datetime.fromtimestamp(launched_at / 1000, UTC)
    times = (
        send_time(start, schedule.local_time, schedule.quiet_hours, schedule.expires, zone)
        for zone in (_ZONES if schedule.expires else ())
    )
    return schedule.expires is not None and all(time.expires_at <= launched_at for time in times if time.expires_at)


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
