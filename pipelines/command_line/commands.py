"""The command lines of the pipelines; an option of another one is refused with that reason."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from connectors.kafka.options import add_kafka_options
from pipelines.collect.options import CollectOptions
from pipelines.command_line.engine_options import AddOptions, ParsedOptions, read_options
from pipelines.features.options import FeaturesOptions
from pipelines.launch.options import LaunchOptions
from pipelines.rebatch.options import RebatchOptions


def read_launch(argv: Sequence[str]) -> ParsedOptions:
    """The options of a launch."""
    others = _not_of("rebatch", add_rebatch_options, add_launch_options)
    return read_options(argv, "launch", add_launch_options, others, streaming=False)


def read_rebatch(argv: Sequence[str]) -> ParsedOptions:
    """The options of rebatch."""
    others = _not_of("launch", add_launch_options, add_rebatch_options)
    return read_options(argv, "rebatch", add_rebatch_options, others, streaming=True)


def read_features(argv: Sequence[str]) -> ParsedOptions:
    """The options of features."""
    others = _not_of("launch", add_launch_options, add_features_options)
    others |= _not_of("rebatch", add_rebatch_options, add_features_options)
    others |= _not_of("collect", add_collect_options, add_features_options)
    return read_options(argv, "features", add_features_options, others, streaming=True)


def read_collect(argv: Sequence[str]) -> ParsedOptions:
    """The options of collect."""
    others = _not_of("launch", add_launch_options, add_collect_options)
    others |= _not_of("rebatch", add_rebatch_options, add_collect_options)
    return read_options(argv, "collect", add_collect_options, others, streaming=True)


def add_collect_options(parser: ArgumentParser) -> None:
    """Adds collect's own options to a parser."""
    CollectOptions._add_argparse_args(parser)
    add_kafka_options(parser)


def add_features_options(parser: ArgumentParser) -> None:
    """Adds the own options of features to a parser."""
    FeaturesOptions._add_argparse_args(parser)
    add_kafka_options(parser, publishing=True)


def add_launch_options(parser: ArgumentParser) -> None:
    """Adds a launch's own options to a parser."""
    LaunchOptions._add_argparse_args(parser)
    add_kafka_options(parser, publishing=True)


def add_rebatch_options(parser: ArgumentParser) -> None:
    """Adds rebatch's own options to a parser."""
    RebatchOptions._add_argparse_args(parser)
    add_kafka_options(parser)


def _not_of(command: str, add: AddOptions, add_own: AddOptions) -> dict[str, str]:
    """The options that only the other command has, with what to say about each."""
    other, own = ArgumentParser(add_help=False), ArgumentParser(add_help=False)
    add(other)
    add_own(own)
    names = other._option_string_actions.keys() - own._option_string_actions.keys()
    return dict.fromkeys(names, f"is an option of `campaigns {command}`; remove it")
