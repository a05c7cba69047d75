"""The presets of --on: Beam's options for each engine, and the reason for each option.

An option on the command line comes after those of the preset, and wins.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions

BUILT_IN = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
PRISM = "PrismRunner"
DATAFLOW = "DataflowRunner"
FLINK = ("PortableRunner", "FlinkRunner")


class Flag(NamedTuple):
    """An option, and the reason for it."""

    option: str
    why: str


class Preset(NamedTuple):
    """An engine: what it is for, its options, and more of them for streaming jobs."""

    what: str
    flags: tuple[Flag, ...]
    streaming: tuple[Flag, ...] = ()


_LOCAL_FLINK = (
    Flag("--runner=PortableRunner", "submits to the job server that `campaigns flink` runs beside its cluster"),
    Flag("--job_endpoint=localhost:8099", "where that job server listens"),
    Flag("--environment_type=EXTERNAL", "the Python workers are started by a pool beside Flink, not in containers"),
    Flag("--environment_config=localhost:50000", "where that pool listens"),
)
_OTHER_FLINK = (
    Flag("--runner=FlinkRunner", "Beam fetches its own job server for the cluster that --flink_master names"),
    Flag("--flink_version=1.19", "the job server must be of the cluster's version; Beam's default is a later one"),
)
PRESETS = {
    "direct": Preset(
        "tests, demos, launches on one machine: needs nothing but Beam; keeps all in memory",
        (
            Flag(f"--runner={BUILT_IN}", "named in full: DirectRunner would first try to download Prism"),
            Flag("--direct_running_mode=in_memory", "one process: two are slower for lists as long as ours"),
        ),
    ),
    "prism": Preset(
        "a service on one machine: real-time timers and watermarks; state in memory, so a restart reads again",
        (Flag(f"--runner={PRISM}", "named: DirectRunner would fall back to another engine without a word"),),
    ),
    "flink": Preset(
        "several machines without a cloud: state and offsets in checkpoints, restart from the last one",
        (
            *_LOCAL_FLINK,
            Flag("--parallelism=2", "as many as the slots of the local cluster; a key belongs to one of them"),
        ),
        (
            Flag("--checkpointing_interval=5000", "what is read again after a crash: five seconds of it"),
            Flag(
                "--min_pause_between_checkpoints=500",
                "the end of one reaches every worker before the next begins: acknowledging counts on it",
            ),
            Flag(
                "--finish_bundle_before_checkpointing",
                "else what a bundle still gives stays in the checkpoint until another bundle comes, maybe for ever",
            ),
            Flag(
                "--max_bundle_time_mills=300",
                "state is read and committed once a key and bundle: fewer, larger bundles",
            ),
        ),
    ),
    "dataflow": Preset(
        "Google Cloud: workers that come and go with the load; the guide is docs/dataflow.md",
        (Flag(f"--runner={DATAFLOW}", "submits to the Dataflow service of --project and --region"),),
        (
            Flag("--enable_streaming_engine", "state and timers are kept by the service: workers need small disks"),
            Flag("--autoscaling_algorithm=THROUGHPUT_BASED", "as many workers as the backlog needs"),
            Flag("--experiments=use_runner_v2", "splittable sources and state in Python need it"),
        ),
    ),
}


_NUMBERS = (
    "auto_watermark_interval", "checkpoint_timeout_millis", "checkpointing_interval", "execution_retry_delay",
    "file_input_split_max_size_m_b", "job_check_interval_in_secs", "latency_tracking_interval", "max_bundle_size",
    "max_bundle_time_mills", "min_pause_between_checkpoints", "num_concurrent_checkpoints",
    "number_of_execution_retries", "shutdown_sources_after_idle_ms",
)  # fmt: skip
_SWITCHES = (
    "allow_non_restored_state", "disable_metrics", "enable_stable_input_drain", "externalized_checkpoints_enabled",
    "faster_copy", "finish_bundle_before_checkpointing", "force_slot_sharing_group",
    "force_unaligned_checkpoint_enabled", "object_reuse", "re_iterable_group_by_key_result",
    "retain_externalized_checkpoints_on_cancellation", "unaligned_checkpoint_enabled",
)  # fmt: skip
_TEXTS = (
    "checkpointing_mode", "execution_mode_for_batch", "flink_conf_dir", "report_checkpoint_duration", "savepoint_path",
    "state_backend", "state_backend_factory", "state_backend_storage_path",
)  # fmt: skip


class FlinkOptions(PipelineOptions):
    """Options of Beam's Java runner for Flink that Beam's Python does not declare, so that they are checked here."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        for name in _NUMBERS:
            parser.add_argument(f"--{name}", type=int, help="of Flink")
        for name in _SWITCHES:
            parser.add_argument(f"--{name}", action="store_true", default=None, help="of Flink")
        for name in _TEXTS:
            parser.add_argument(f"--{name}", help="of Flink")


def flags_of(name: str, argv: list[str], *, streaming: bool) -> tuple[Flag, ...]:
    """The flags of a preset, given the other options of the command line."""
    preset = PRESETS[name]
    flags = preset.flags + (preset.streaming if streaming else ())
    if name == "flink" and any(option.partition("=")[0] == "--flink_master" for option in argv):
        flags = _OTHER_FLINK + flags[len(_LOCAL_FLINK) :]
    return flags
