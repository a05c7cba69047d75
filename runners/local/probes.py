"""Try whether an engine, a broker or an emulator works, in a process of its own that may be ended.

python -m runners.local.probes NAME
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from runners.local.emulators import EmulatorError, bigtable_emulator, firestore_emulator, pubsub_emulator
from runners.local.flink.cluster import FlinkCluster, default_cluster_answers
from runners.local.gcs_server import gcs_server
from runners.local.kafka_broker import KafkaBroker, kafka_broker
from runners.local.redis_server import RedisServer, redis_server


def _run_pipeline(name: str) -> str:
    """Run a pipeline of one element with the preset. Beam is loaded here: the other probes have no time for it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.testing.util import assert_that, equal_to

    from pipelines.engines.choose import choose_engine, expand_preset, prepare_engine

    options = PipelineOptions(expand_preset([f"--on={name}"], streaming=False))
    choose_engine(options, drain=True)
    prepare_engine(options)
    with beam.Pipeline(options=options) as p:
        assert_that(p | beam.Create([1]) | beam.Map(lambda number: number + 1), equal_to([2]))
    return "ran a pipeline"


def _flink() -> str:
    """Ask the cluster of `campaigns flink` if it runs, or start a JobManager: a whole cluster takes longer to start."""
    if answer := default_cluster_answers():
        return answer
    with tempfile.TemporaryDirectory() as folder:
        cluster = FlinkCluster(Path(folder))
        try:
            cluster.start_jobmanager()
            return f"a JobManager of {cluster.rest('GET', '/config')['flink-version']} answered"
        finally:
            cluster.stop()


def _dataflow() -> str:
    """Look for credentials; only a job shows whether the project accepts them."""
    import google.auth
    import google.auth.exceptions

    try:
        _, project = google.auth.default()
    except google.auth.exceptions.GoogleAuthError as error:
        raise EmulatorError("no credentials; run `gcloud auth application-default login`") from error
    return f"has credentials, of {project or 'no project: give --project'}"


def _answers(server: AbstractContextManager[str | KafkaBroker | RedisServer]) -> str:
    with server as running:
        address = running if isinstance(running, str) else running.host
        return f"answered on {address.removeprefix('http://')}"


PROBES: dict[str, Callable[[], str]] = {
    "direct": lambda: _run_pipeline("direct"),
    "prism": lambda: _run_pipeline("prism"),
    "flink": _flink,
    "dataflow": _dataflow,
    "kafka": lambda: _answers(kafka_broker()),
    "pubsub": lambda: _answers(pubsub_emulator()),
    "firestore": lambda: _answers(firestore_emulator()),
    "bigtable": lambda: _answers(bigtable_emulator()),
    "redis": lambda: _answers(redis_server()),
    "gcs": lambda: _answers(gcs_server()),
}


def main(name: str) -> int:
    """0 if it works; the last printed line says how, or what is wrong. SIGTERM ends the started processes too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        print(PROBES[name]())
    except EmulatorError as error:
        print(error)
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
