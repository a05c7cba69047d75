"""The command `campaigns flink`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from runners.cli.arguments import argument, problem
from runners.local.flink.cluster import DEFAULT, flink_cluster, taken
from runners.local.flink.jobs import stop_job
from schemas.problems import InputError, JobError

FLINK = (
    argument(
        "action", nargs="?", default="run", choices=("run", "stop"), help="run a cluster (the default), or stop a job"
    ),
    argument("job", nargs="?", help="stop: the job's id; not needed when only one runs"),
    argument(
        "--address",
        default=f"localhost:{DEFAULT[0]}",
        metavar="HOST:PORT",
        help="stop: the JobManager (localhost:8081)",
    ),
    argument(
        "--savepoints",
        metavar="DIR",
        help="stop: where the savepoint goes (where the cluster keeps them), such as file:///mnt/s",
    ),
    argument("--folder", default="out/flink", metavar="DIR", help="checkpoints, savepoints, logs (out/flink)"),
    argument("--slots", type=int, default=2, help="number of tasks of a step that run in parallel (2)"),
    argument(
        "--backend", default="hashmap", choices=("hashmap", "rocksdb"), help="state in memory, or on disk (hashmap)"
    ),
)


def flink(args: argparse.Namespace) -> int:
    """Run a Flink cluster on this machine, for --on flink, until SIGTERM or Ctrl-C; processes that die are restarted.

    Or `stop` a job of any cluster with a savepoint, from which the next job resumes.
    """
    if args.action == "stop":
        return _stop(args)
    if args.slots < 1:
        raise InputError([problem("--slots", str(args.slots), "must be 1 or more")])
    if busy := taken(DEFAULT):
        ports = ", ".join(map(str, busy))
        raise JobError(f"port {ports} is in use: a cluster may run already; see `campaigns engines flink`")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with flink_cluster(Path(args.folder), slots=args.slots, backend=args.backend, ports=DEFAULT) as cluster:
            print(f"Flink on http://{cluster.address}; checkpoints and logs in {args.folder}", flush=True)
            while True:
                time.sleep(1.0)
                if ended := cluster.ended():
                    print(f"{', '.join(ended)} ended and is restarted", file=sys.stderr, flush=True)
                    cluster.start()
    except KeyboardInterrupt:
        return 0


def _stop(args: argparse.Namespace) -> int:
    job, savepoint = stop_job(args.address, args.job, args.savepoints)
    print(f"{job} has stopped. Go on with: campaigns rebatch --on flink … --savepoint_path={savepoint}")
    return 0
