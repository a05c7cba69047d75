"""Templates for Dataflow: their parameters are the pipelines' options, and the command that builds them."""

from __future__ import annotations

import json
import re
import stat
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.options import add_kafka_options
from pipelines.launch.options import LaunchOptions
from pipelines.rebatch.options import RebatchOptions
from runners.cli.flex_template import FLAGS, arguments
from runners.cli.main import main
from runners.cli.template import JOBS, ROOT, commands, template_spec

ELSEWHERE = ("drain", "idle", "kafka_config")
"""Options that no template has: Dataflow drains its jobs itself, and a launcher has no file of this machine."""
OPTIONS: dict[str, tuple[Any, bool]] = {"rebatch": (RebatchOptions, False), "launch": (LaunchOptions, True)}
IMAGE, SPEC = "europe-docker.pkg.dev/project-1/campaigns/rebatch:1", "gs://bucket/templates/rebatch.json"
P = "projects/project-1"
GOOD = {
    "campaigns": ["gs://bucket/campaigns", "gs://my-bucket.example/a/b/"],
    "events": ["kafka:broker-1:9092,broker-2:9092/events", "file:gs://bucket/events"],
    "output": ["gs://bucket/out/spring-1"],
    "ledger": [f"firestore:{P}/databases/(default)/deliveries", f"firestore:{P}/databases/ledger/d"],
    "secrets": [P],
    "patience": ["0", "60", "1.5"], "ignore_times": ["true", "false"], "readers": ["1", "16"],
    "schema_registry": ["http://registry:8081", "https://registry.example/path"],
    "kafka_group": ["campaigns"], "start": ["earliest", "latest", "2026-04-01T09:00Z", "0:10,1:20"],
    "customers": ["gs://bucket/customers.parquet", "gs://bucket/day/*.csv", "bigquery:project-1.crm.customers"],
    "launch_id": ["spring-1", "2026_04.a"], "history": ["gs://bucket/out/winter"],
    "sticky": ["gs://bucket/out/winter/sticky.parquet"],
    "batch_rows": ["131072"], "broker_wait": ["60", "0.5"], "log_format": ["text", "json"], "strict": ["true"], "test": ["true"],
}  # fmt: skip
BAD = {
    "campaigns": ["", "campaigns", "/campaigns", "gs://", "gs://bucket/a b", "s3://bucket/a"],
    "events": ["", "pubsub:projects/P/topics", "file:/events", "kafka:broker/events", "events"],
    "output": ["out", "gs://Bucket/out"],
    "ledger": ["", "sqlite:out/ledger.db", f"firestore:{P}/deliveries"],
    "secrets": ["project-1", "projects/"],
    "patience": ["-1", "soon"], "ignore_times": ["yes", ""], "readers": ["0", "two"],
    "schema_registry": ["registry:8081", "file:///x"],
    "kafka_group": ["a group", ""], "start": ["yesterday", "0:", "0-10"],
    "customers": ["customers.parquet", "bigquery:", "gs://"],
    "launch_id": ["-a", "a b", "a" * 65], "history": ["winter"], "sticky": ["gs://bucket/sticky.csv"],
    "batch_rows": ["0", "1.5"], "broker_wait": ["0", "0.0", "-1"], "strict": ["yes"], "log_format": ["yaml", ""], "test": ["on"],
}  # fmt: skip


def parameters(job: str) -> list[dict[str, Any]]:
    return list(template_spec(job, IMAGE)["metadata"]["parameters"])


def actions(job: str) -> dict[str, Any]:
    parser = ArgumentParser(add_help=False)
    options, publishing = OPTIONS[job]
    options._add_argparse_args(parser)
    add_kafka_options(parser, publishing=publishing)
    return {one.dest: one for one in parser._actions if one.dest not in ELSEWHERE}


@pytest.mark.parametrize("job", JOBS)
def test_a_template_has_every_option_of_its_pipeline_and_no_other(job: str) -> None:
    given, options = parameters(job), actions(job)
    assert [one["name"] for one in given] == list(dict.fromkeys(one["name"] for one in given))
    assert {one["name"] for one in given} == set(options)
    for one in given:
        assert one["label"]
        assert one["helpText"].endswith(".")
        default = options[one["name"]].default
        if default not in (None, False):
            assert type(default)(one["defaultValue"]) == default
        assert one["isOptional"] is (one["name"] not in ("campaigns", "customers", "events", "output", "ledger"))
    assert {f"--{name}" for name, one in options.items() if one.const is True} <= set(FLAGS)


@pytest.mark.parametrize("job", JOBS)
def test_a_template_takes_good_values_and_refuses_bad_ones(job: str) -> None:
    own = {"rebatch": f"pubsub:{P}/subscriptions/events", "launch": f"pubsub:{P}/topics/events"}
    other = own["launch" if job == "rebatch" else "rebatch"]
    for one in parameters(job):
        more = {"good": [own[job]], "bad": [other]} if one["name"] == "events" else {"good": [], "bad": []}
        (regex,) = one["regexes"]
        good, bad = [*GOOD[one["name"]], *more["good"]], [*BAD[one["name"]], *more["bad"]]
        assert [value for value in good if not re.fullmatch(regex, value)] == [], one["name"]
        assert [value for value in bad if re.fullmatch(regex, value)] == [], one["name"]
        if "defaultValue" in one:
            assert re.fullmatch(regex, one["defaultValue"])


def test_what_the_launcher_gives_becomes_the_jobs_arguments() -> None:
    given = [
        "--events=pubsub:x",
        "--ignore_times=true",
        "--test=false",
        "--ledger=",
        "--region=europe-west1",
        "--update",
    ]
    assert arguments(given, {"CAMPAIGNS_IMAGE": IMAGE}) == [
        "--events=pubsub:x", "--ignore_times", "--region=europe-west1", "--update", "--runner=DataflowRunner",
        f"--sdk_container_image={IMAGE}", "--sdk_location=container",
    ]  # fmt: skip
    assert arguments(["--sdk_container_image=mine", "--runner=X"], {"CAMPAIGNS_IMAGE": IMAGE}) == [
        "--sdk_container_image=mine", "--runner=X",
    ]  # fmt: skip


def build(*more: str, **names: str) -> int:
    options = [f"--{name}={value}" for name, value in ({"image": IMAGE, "spec": SPEC} | names).items()]
    return main(["template", "build", "rebatch", *options, *more])


def test_a_dry_run_shows_the_commands_and_the_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--dry_run") == 0
    docker, push, write, *spec = capsys.readouterr().out.splitlines()
    assert docker.startswith(f"docker build --tag {IMAGE} --build-arg JOB=rebatch --build-arg IMAGE={IMAGE}")
    assert (push, write) == (f"docker push {IMAGE}", f"write {SPEC}:")
    assert json.loads("\n".join(spec))["sdkInfo"] == {"language": "PYTHON"}


def test_the_image_holds_what_the_packages_need() -> None:
    text = (ROOT / "templates/Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in sources)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"examples", "bench", "tests"}
    assert packages <= set(sources)
    version = re.search(r"apache-beam\[gcp\]==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert version is not None
    assert f"FROM apache/beam_python3.11_sdk:{version[1]}\n" in text


@pytest.mark.parametrize(
    ("option", "value"),
    [("image", "rebatch"), ("image", "x/y:1; rm"), ("spec", "rebatch.json"), ("spec", "gs://b/x.yaml")],
)
def test_a_name_that_cannot_be_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(**{option: value}) == 2
    assert f"--{option} = {value}" in capsys.readouterr().err


def test_without_docker_and_when_docker_fails_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build() == 1
    assert "Install Docker" in capsys.readouterr().err
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = build ]\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    assert build() == 1
    assert f"`docker push {IMAGE}` ended with status 1" in capsys.readouterr().err
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [" ".join(one[1:]) for one in commands("rebatch", IMAGE)]
