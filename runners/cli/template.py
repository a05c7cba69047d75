"""The command `campaigns template build`: build a Flex Template's image, and write the file that names it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from connectors.files.sink import write_whole
from runners.cli.arguments import argument, problem
from schemas.problems import InputError, JobError, Problem

ROOT = Path(__file__).parents[2]
JOBS = ("rebatch", "launch")
_IMAGE = re.compile(
    r"[a-z0-9]+([._-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
)
_SPEC = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/\s]+)+\.json")

TEMPLATE = (
    argument("action", choices=("build",)),
    argument("job", choices=JOBS, help="the pipeline of the template"),
    argument("--image", required=True, help="the image to build, such as europe-docker.pkg.dev/P/REPOSITORY/rebatch:1"),
    argument("--spec", required=True, help="the template to write, gs://BUCKET/…/NAME.json"),
    argument("--dry_run", action="store_true", help="show the steps, and do nothing"),
)


def template_spec(job: str, image: str) -> dict[str, Any]:
    """The content of a Flex Template: its image, and its parameters with their checks."""
    metadata = json.loads((ROOT / "templates" / f"{job}.json").read_text("utf-8"))
    return {"image": image, "metadata": metadata, "sdkInfo": {"language": "PYTHON"}}


def commands(job: str, image: str) -> list[list[str]]:
    """The Docker commands, as lists of arguments."""
    arguments = ["--build-arg", f"JOB={job}", "--build-arg", f"IMAGE={image}"]
    build = ["docker", "build", "--tag", image, *arguments, "--file", str(ROOT / "templates/Dockerfile"), str(ROOT)]
    return [build, ["docker", "push", image]]


def build(args: argparse.Namespace) -> int:
    """Build and push the image, then write the template; 0 when all is done."""
    problems = _problems(args)
    if problems:
        raise InputError(problems)
    spec = json.dumps(template_spec(args.job, args.image), indent=2, ensure_ascii=False)
    if args.dry_run:
        print(*map(shlex.join, commands(args.job, args.image)), f"write {args.spec}:", spec, sep="\n")
        return 0
    if shutil.which("docker") is None:
        raise JobError("there is no docker here. Install Docker, or show the steps with --dry_run")
    for command in commands(args.job, args.image):
        if code := subprocess.run(command, check=False).returncode:
            todo = "See what it says above; to push, run `gcloud auth configure-docker` first"
            raise JobError(f"`{shlex.join(command)}` ended with status {code}. {todo}")
    write_whole(args.spec, [spec.encode()])
    print(f"{args.spec} is ready: gcloud dataflow flex-template run NAME --template-file-gcs-location={args.spec} …")
    return 0


def _problems(args: argparse.Namespace) -> list[Problem]:
    problems = []
    if not _IMAGE.fullmatch(args.image):
        fix = "write HOST/PROJECT/REPOSITORY/NAME:TAG, such as europe-docker.pkg.dev/my-project/campaigns/rebatch:1"
        problems.append(problem("--image", args.image, fix))
    if not _SPEC.fullmatch(args.spec):
        fix = "write gs://BUCKET/FOLDER/NAME.json: Dataflow reads templates from Cloud Storage"
        problems.append(problem("--spec", args.spec, fix))
    if not (ROOT / "templates/Dockerfile").is_file():
        fix = "is not here: an image is built from a checkout of the project, so run this there"
        problems.append(Problem(str(ROOT), "templates/Dockerfile", "missing", fix))
    return problems
