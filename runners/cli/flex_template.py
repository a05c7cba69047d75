"""What a Flex Template's launcher runs: the job that its image is for (CAMPAIGNS_JOB), submitted to Dataflow.

The launcher gives every parameter as --NAME=VALUE, so a flag comes as --NAME=true or =false; an empty value is none.
The workers run in the same image (CAMPAIGNS_IMAGE), which holds all packages already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from pipelines.command_line.exit_codes import EXIT_CODES
from pipelines.launch import driver as launch
from pipelines.rebatch import driver as rebatch
from schemas.problems import ErrorKind

JOBS: dict[str, Callable[[list[str]], int]] = {"rebatch": rebatch.run, "launch": launch.run}
FLAGS = ("--ignore_times", "--strict", "--test")


def arguments(given: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The job's arguments, from those of the launcher."""
    argv = []
    for one in given:
        name, _, value = one.partition("=")
        if name in FLAGS and value.lower() in ("true", "false"):
            argv += [name] if value.lower() == "true" else []
        elif value or "=" not in one:
            argv.append(one)
    names = {one.partition("=")[0] for one in argv}
    image = environment.get("CAMPAIGNS_IMAGE")
    if "--runner" not in names:
        argv.append("--runner=DataflowRunner")
    if image and "--sdk_container_image" not in names:
        argv.append(f"--sdk_container_image={image}")
        argv += [] if "--sdk_location" in names else ["--sdk_location=container"]
    return argv


def main() -> int:
    """The exit code of the submission."""
    job = os.environ.get("CAMPAIGNS_JOB", "")
    if job not in JOBS:
        print(f"CAMPAIGNS_JOB={job} names no job; build the image with --build-arg JOB=rebatch or launch")
        return EXIT_CODES[ErrorKind.INPUT]
    return JOBS[job](arguments(sys.argv[1:], os.environ))


if __name__ == "__main__":
    sys.exit(main())
