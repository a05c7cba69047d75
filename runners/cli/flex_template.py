"""Submit the job of a Flex Template's image (CAMPAIGNS_JOB) to Dataflow; the template's launcher runs this.

The launcher gives every parameter as --NAME=VALUE, so a flag is --NAME=true or =false; an empty value
leaves the option out.
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


def arguments(parameters: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The job's arguments, from the launcher's parameters."""
    argv = []
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name in FLAGS and value.lower() in ("true", "false"):
            argv += [name] if value.lower() == "true" else []
        elif value or "=" not in parameter:
            argv.append(parameter)
    names = {option.partition("=")[0] for option in argv}
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
