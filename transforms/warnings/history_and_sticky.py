"""Warnings about --history and --sticky files without effect, because of which people get messages too often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaigns.configuration import Configuration
from schemas.problems import plural
from transforms.warnings.evidence import EarlierUses
from transforms.warnings.warning import LaunchWarning, join_names


def history_warnings(
    config: Configuration, sources: Sequence[str], sends: Mapping[str, int]
) -> Iterator[LaunchWarning]:
    """A history without a send that a cap counts, and its channels that engine.yaml lacks; `sends` by channel."""
    if not sources:
        return
    total, names = sum(sends.values()), join_names(sources)
    capped = {cap.channel for cap in config.engine.caps} & {campaign.channel for campaign in config.campaigns}
    if not any(sends.get(channel) for channel in capped):
        why = f"None of its {total:,} sends is on {join_names(sorted(capped))}, the channels with a cap"
        if not capped:
            why = "engine.yaml has no cap on a channel of these campaigns"
        text = f"{why}, so the history stops no message. Correct that, or leave --history out."
        yield LaunchWarning("history_unused", "", "--history", "", names, total, "", text)
    if unknown := sorted(sends.keys() - config.engine.channels.keys()):
        count = sum(sends[channel] for channel in unknown)
        channels = join_names(unknown)
        text = f"{count:,} of its {total:,} sends are on channels that engine.yaml does not have ({channels}), so no "
        text += f"cap counts them. Write its channels: {join_names(sorted(config.engine.channels))}."
        yield LaunchWarning("history_channel_unknown", "", "--history", "channel", channels, count, unknown[0], text)


def sticky_warnings(config: Configuration, source: str | None, table: pa.Table | None) -> Iterator[LaunchWarning]:
    """Assignments without one of a sticky experiment, and those of variants that their experiment does not have."""
    experiments = {e.key: e for campaign in config.campaigns if (e := campaign.experiment) and e.sticky}
    if source is None or table is None:
        return
    if not pc.any(pc.is_in(table["experiment"], pa.array(list(experiments), pa.string()))).as_py():
        others = join_names(sorted(pc.unique(table["experiment"]).to_pylist()))
        text = f"None of its {table.num_rows:,} assignments (of {others}) is of an experiment with sticky: true here, "
        text += f"such as {join_names(sorted(experiments)) or 'none'}. Correct the key, or leave --sticky out."
        yield LaunchWarning("sticky_unused", "", "--sticky", "", source, table.num_rows, "", text)
    for key, experiment in sorted(experiments.items()):
        variants = pa.array([variant.key for variant in experiment.variants], pa.string())
        unknown = pc.invert(pc.is_in(table["variant"], variants))
        lost = table.filter(pc.and_(pc.equal(table["experiment"], key), unknown))
        if lost.num_rows:
            names, known = join_names(sorted(pc.unique(lost["variant"]).to_pylist())), join_names(variants.to_pylist())
            unit, count = lost["unit"][0].as_py(), lost.num_rows
            text = f"{count:,} units, such as {unit!r}, were given variants that the experiment {key} does not "
            text += f"have: they get another. It has {known}. Correct the file or the variants."
            yield LaunchWarning("sticky_unknown_variant", "", "--sticky", f"{key}.variant", names, count, unit, text)


def unmatched_entries(history: EarlierUses, sticky: EarlierUses) -> Iterator[LaunchWarning]:
    """The channels of the history and the experiments of the assignments in which no customer has an entry."""
    for channel, (entries, first, customers) in history.items():
        if not customers:
            text = f"None of the {entries:,} customers with sends on {channel}, such as {first}, is a customer here, "
            text += "so no cap counts them. Check the file's columns of the retailer and the customer."
            yield LaunchWarning("history_matches_nobody", "", "--history", "channel", channel, entries, first, text)
    for key, (entries, first, customers) in sticky.items():
        if not customers:
            text = f"None of the {entries:,} units, such as {first!r}, is a customer's here, so nobody keeps a "
            text += "variant. Check the file, and the experiment's unit."
            yield LaunchWarning("sticky_matches_nobody", "", "--sticky", "experiment", key, entries, first, text)


def earlier_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The customers with an entry in the history and in the sticky assignments, as lines for a terminal."""
    for use in summary["history"]:
        line = f"{use['customers']:,} of {use['entries']:,} customers in it are customers here"
        yield f"history of {use['channel']}: {line}"
    for use in summary["sticky"]:
        customers, have = plural(use["customers"], "customer"), "has" if use["customers"] == 1 else "have"
        line = f"{customers} here {have} one of its {plural(use['entries'], 'assignment')}"
        yield f"sticky {use['experiment']}: {line}"
