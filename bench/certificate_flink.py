"""The crash certificate of rebatch on Flink: workers, a TaskManager or everything are killed with -9.

    python -m bench.certificate_flink

200,000 events go from Kafka (or from Pub/Sub's emulator) through a job on a cluster of separate processes, with a
checkpoint every five seconds. After the death of a worker or of the TaskManager Flink restarts the job by itself;
after the death of everything the job is submitted again and resumes from the last complete checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.certificate import Run, main
from bench.deliveries import kill, start_rebatch, wait
from bench.flink_faults import cancel_all, kill_workers, latest_checkpoint
from runners.local.flink.cluster import FlinkCluster, flink_cluster

_KINDS = ("worker", "taskmanager", "everything")
_WHOLE_S = 300.0  # until the job runs and has a first checkpoint


class FlinkRun(Run):
    """One run of the certificate with a cluster of its own."""

    def _prepare(self, stack: ExitStack) -> None:
        os.environ["SANDBOX_KEY"] = "key"
        self._cluster: FlinkCluster = stack.enter_context(flink_cluster(self._folder / "flink"))

    def _submit(self, campaigns: Path, *more: str) -> subprocess.Popen[bytes]:
        """The job, from the last checkpoint on if there is one."""
        checkpoint = latest_checkpoint(self._cluster)
        restored = [f"--savepoint_path={checkpoint}"] if checkpoint else []
        options = ["--on=flink", *self._cluster.options(), *restored, *more]
        return start_rebatch(campaigns, self._uri, self._output, *options, log=self._log)

    def _kill_again_and_again(self, campaigns: Path, say: Any) -> int:
        """Publishes a part and kills something, after a random while; how often something died."""
        killed, parts, messages = 0, max(1, self._kills), self._sent.messages
        job = self._submit(campaigns)
        self._until_it_checkpoints(None)
        for number in range(parts):
            self._publish(number, messages[number * len(messages) // parts : (number + 1) * len(messages) // parts])
            if self._kills:
                time.sleep(self._rnd.uniform(1.0, self._longest_life_s))
                kind = _KINDS[number % len(_KINDS)]
                say(f"{self._source}, {self._on_unknown}: kill {number + 1}, {kind}")
                before = latest_checkpoint(self._cluster)
                if kind == "worker":
                    killed += kill_workers(self._cluster)
                elif kind == "taskmanager":
                    self._cluster.kill("taskmanager")
                    self._cluster.start()
                    killed += 1
                else:
                    kill(job)
                    self._cluster.stop()
                    killed += 1
                    self._cluster.start()
                    job = self._submit(campaigns)
                self._until_it_checkpoints(before)
        self._end(job)
        return killed

    def _drain(self, campaigns: Path, say: Any) -> int:
        """Runs with --drain from the last checkpoint until nothing waits; how many runs that took."""
        for number in range(1, 10):
            say(f"{self._source}, {self._on_unknown}: drain {number}")
            job = self._submit(campaigns, "--drain", "--idle=8")
            code = wait(job, 600)
            if code != 0:
                kill(job)
                raise RuntimeError(f"rebatch ended with {code}: {self._log.read_text()[-2000:]}")
            if not self._open_ends():
                return number
            time.sleep(2)
        return 10

    def _end(self, job: subprocess.Popen[bytes]) -> None:
        """Ends the job in the middle of its work; the next one goes on from its last checkpoint."""
        kill(job)
        cancel_all(self._cluster)

    def _until_it_checkpoints(self, before: str | None) -> None:
        """Waits for a whole checkpoint after the one `before`: the job runs again."""
        end = time.monotonic() + _WHOLE_S
        while latest_checkpoint(self._cluster) == before:
            if time.monotonic() > end:
                raise RuntimeError(f"no checkpoint in {_WHOLE_S} s; {self._cluster.jobs()}; see {self._folder}")
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", 200_000, 12, ("kafka:resend",), FlinkRun))
