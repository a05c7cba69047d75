"""The command `campaigns template build`: a Flex Template's image, and the file in Cloud Storage that names it."""

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
from runners.cli.arguments import Argument
from schemas.problems import InputError, JobError, Problem

ROOT = Path(__file__).parents[2]
JOBS = ("rebatch", "launch")
_IMAGE = re.compile(
    r"[a-z0-9]+([._-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
)
_SPEC = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^/\s]+)+\.json")

TEMPLATE = (
    Argument(("action",), {"choices": ("build",)}),
    Argument(("job",), {"choices": JOBS, "help": "the pipeline that the template is of"}),
    Argument(
        ("--image",), {"required": True, "help": "its image, such as europe-docker.pkg.dev/P/REPOSITORY/rebatch:1"}
    ),
    Argument(("--spec",), {"required": True, "help": "where the template goes, gs://BUCKET/…/NAME.json"}),
    Argument(("--dry_run",), {"action": "store_true", "help": "show what would be done, and do nothing"}),
)


def template_spec(job: str, image: str) -> dict[str, Any]:
    """What Dataflow reads of a Flex Template: its image, and its parameters with their checks."""
    metadata = json.loads((ROOT / "templates" / f"{job}.json").read_text("utf-8"))
    return {"image": image, "metadata": metadata, "sdkInfo": {"language": "PYTHON"}}


def commands(job: str, image: str) -> list[list[str]]:
    """What Docker is asked to do, as lists of arguments."""
    told = ["--build-arg", f"JOB={job}", "--build-arg", f"IMAGE={image}", "--file", str(ROOT / "templates/Dockerfile")]
    return [["docker", "build", "--tag", image, *told, str(ROOT)], ["docker", "push", image]]


def build(args: argparse.Namespace) -> int:
    """Builds and pushes the image, then writes the template; 0 when all of it was done."""
    problems = _problems(args)
    if problems:
        raise InputError(problems)
    spec = json.dumps(template_spec(args.job, args.image), indent=2, ensure_ascii=False)
    if args.dry_run:
        print(*map(shlex.join, commands(args.job, args.image)), f"write {args.spec}:", spec, sep="\n")
        return 0
    if shutil.which("docker") is None:
        raise JobError("there is no docker here. Install Docker, or look at what it would do with --dry_run")
    for command in commands(args.job, args.image):
        if code := subprocess.run(command, check=False).returncode:
            todo = "See what it says above; to push, run `gcloud auth configure-docker` first"
            raise JobError(f"`{shlex.join(command)}` ended with status {code}. {todo}")
    write_whole(args.spec, [spec.encode()])
    print(f"{args.spec} is ready: gcloud dataflow flex-template run NAME --template-file-gcs-location={args.spec} …")
    return 0


def _problems(args: argparse.Namespace) -> list[Problem]:
    found = []
    if not _IMAGE.fullmatch(args.image):
        fix = "write HOST/PROJECT/REPOSITORY/NAME:TAG, such as europe-docker.pkg.dev/my-project/campaigns/rebatch:1"
        found.append(Problem("command line", "--image", args.image, fix))
    if not _SPEC.fullmatch(args.spec):
        fix = "write gs://BUCKET/FOLDER/NAME.json: Dataflow reads templates from Cloud Storage"
        found.append(Problem("command line", "--spec", args.spec, fix))
    if not (ROOT / "templates/Dockerfile").is_file():
        fix = "is not here: an image is built from a checkout of the project, so run this there"
        found.append(Problem(str(ROOT), "templates/Dockerfile", "missing", fix))
    return found
