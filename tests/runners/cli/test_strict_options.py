"""Every command refuses what it does not know, with the nearest word that it knows, and runs nothing."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from support.factories import SECRET
from support.launching import Place, any_place

from pipelines.command_line import engine_options
from pipelines.command_line.commands import (
    add_collect_options,
    add_launch_options,
    add_rebatch_options,
    read_launch,
    read_rebatch,
)
from pipelines.engines.presets import BUILT_IN, PRESETS
from runners.cli.main import COMMANDS, main


def options_of(command: str) -> dict[str, argparse.Action]:
    """The longest name of each option of a command."""
    parser = argparse.ArgumentParser(add_help=False)
    if command == "launch":
        add_launch_options(parser)
    elif command == "rebatch":
        add_rebatch_options(parser)
    elif command == "collect":
        add_collect_options(parser)
    else:
        for one in COMMANDS[command].arguments:
            parser.add_argument(*one.names, **one.settings)
    return {action.option_strings[-1]: action for action in parser._actions if action.option_strings}


ANY_NUMBER = ("engines", "events", "features")  # commands that take any number of names
EVERY = ["launch", "rebatch", "collect", *COMMANDS]
OPTIONS = [(command, name) for command in EVERY for name in options_of(command)]
VALUES = [(command, name) for command, name in OPTIONS if options_of(command)[name].nargs != 0]
FLAGS = [(command, name) for command, name in OPTIONS if options_of(command)[name].nargs == 0]
ONCE = [
    (command, name) for command, name in VALUES if not isinstance(options_of(command)[name], argparse._AppendAction)
]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said to a command line that must be refused, by us and not by argparse."""
    assert main(list(argv)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "in the input; nothing was run." in printed.err
    assert "usage:" not in printed.err
    return printed.err


@pytest.mark.parametrize(("command", "name"), OPTIONS)
def test_a_mistyped_option_is_refused_with_the_one_that_is_near(
    capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    mistyped = f"{name[:-2]}{name[-1]}{name[-2]}" if name[-1] != name[-2] else f"{name}x"
    told = refused(capsys, command, f"{mistyped}=1")
    assert f"command line  {mistyped} = not known" in told
    assert f"did you mean {name}?" in told


@pytest.mark.parametrize(("command", "name"), OPTIONS)
def test_the_beginning_of_an_option_is_not_the_option(
    capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    told = refused(capsys, command, name[:-1])
    assert f"command line  {name[:-1]} = not known" in told
    assert "did you mean --" in told


@pytest.mark.parametrize(("command", "name"), VALUES)
def test_an_option_without_its_value_is_refused(capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    assert f"command line  {name} = missing" in refused(capsys, command, name)
    assert f"command line  {name} = missing" in refused(capsys, command, name, "--nothing")
    assert f"command line  {name} = empty" in refused(capsys, command, f"{name}=")


@pytest.mark.parametrize(("command", "name"), FLAGS)
def test_a_flag_with_a_value_is_refused(capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    assert f"command line  {name} = yes" in refused(capsys, command, f"{name}=yes")


@pytest.mark.parametrize(("command", "name"), ONCE)
def test_an_option_given_twice_is_refused(capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    assert f"command line  {name} = given twice" in refused(capsys, command, f"{name}=1", f"{name}=2")


@pytest.mark.parametrize("command", [name for name in EVERY if name not in ANY_NUMBER])
def test_a_stray_word_is_refused(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert "command line  stray-1 = stray word" in refused(capsys, command, "a", "b", "c", "stray-1")


def test_an_unknown_command_is_refused_with_the_one_that_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean launch?" in refused(capsys, "luanch", "--campaigns=c")
    assert "did you mean verify-code?" in refused(capsys, "verify_code")
    assert "COMMAND = missing" in refused(capsys)


NOT_LAUNCHED = [
    (["--tset"], "--tset = not known", "did you mean --test?"),
    (["--tes"], "--tes = not known", "did you mean --test?"),
    (["--histroy", "earlier.parquet"], "--histroy = not known", "did you mean --history?"),
    (["--stciky"], "--stciky = not known", "did you mean --sticky?"),
    (["test"], "test = stray word", "did you mean --test?"),
    (["--", "--test"], "--test = stray word", "did you mean --test?"),
    (["-test"], "-test = not known", "did you mean --test?"),
    (["--on", "drect"], "--on = drect", "did you mean direct?"),
    (["--on"], "--on = missing", "needs a value"),
    (["--runner=Drect"], "--runner = Drect", "did you mean Direct?"),
    (["--runner=no.such.Runner"], "--runner = no.such.Runner", "--on direct|prism|flink|dataflow"),
    (["--machine_tpye=n1"], "--machine_tpye = not known", "did you mean --machine_type?"),
    (["--machine_type"], "--machine_type = missing", "needs a value"),
    (["--num_workers=many"], "--num_workers = many", "must be a whole number"),
    (["--direct_running_mode=fast"], "--direct_running_mode = fast", "one of in_memory, multi_threading"),
    (["--checkpointing_interval=5000"], "--checkpointing_interval = not known", "is an option of Flink"),
    (["--dry_run"], "--dry_run = not known", "`campaigns preview` shows what a launch would do"),
    (["--drain"], "--drain = not known", "is an option of `campaigns rebatch`"),
    (["--start=latest"], "--start = not known", "is an option of `campaigns rebatch`"),
    (["--sticky=a", "--sticky", "b"], "--sticky = given twice", "give it once"),
    (["--history", "--test"], "--history = missing", "--history=VALUE"),
    (["--test=yes"], "--test = yes", "write --test alone"),
    (["--batch_rows=1e3"], "--batch_rows = 1e3", "must be a whole number"),
    (["--broker_wait=nan"], "--broker_wait = nan", "must be a finite number"),
]


@pytest.mark.parametrize(("more", "what", "fix"), NOT_LAUNCHED, ids=[" ".join(row[0]) for row in NOT_LAUNCHED])
def test_a_launch_with_a_mistake_in_its_options_launches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], what: str, fix: str
) -> None:
    place = any_place(tmp_path)
    told = refused(capsys, "launch", *place.argv(*more))
    assert f"command line  {what}" in told
    assert fix in told
    assert told.lstrip().startswith("1 mistake ")
    assert not place.output.exists()
    assert not (tmp_path / "events").exists()


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    any_place(tmp_path)
    (tmp_path / "campaigns" / "listed.yaml").write_text("id: [")
    told = refused(
        capsys, "launch", f"--campaigns={tmp_path / 'campaigns'}", "--tset", "--events", "--batch_rows=0", "x"
    )
    for one in ("--tset = not known", "--events = missing", "--batch_rows = 0", "x = stray word",
                "--customers = missing", "--output = missing", "listed.yaml"):  # fmt: skip
        assert one in told
    assert told.count("--events =") == 1


def test_what_only_another_engine_heeds_is_told_and_the_launch_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
    place = any_place(tmp_path)
    assert place.launch("--machine_type=n1-standard-4", "--on=direct", "--experiments=a", "--experiments=b") == 0
    told = "warning: --machine_type has no effect on direct; only dataflow reads it\n"
    assert told in capsys.readouterr().err
    assert place.exposures()


@pytest.mark.parametrize(
    ("argv", "warned"),
    [
        (["--on=dataflow", "--machine_type=n1"], False),
        (["--on=dataflow", "--parallelism=2"], True),
        (["--on=flink", "--parallelism=2", "--object_reuse", "--state_backend=rocksdb"], False),
        (["--on=flink", "--prism_location=p"], True),
        (["--on=prism", "--prism_location=p", "--job_name=j"], False),
        (["--runner=DataflowRunner", "--region=r", "--project=p"], False),
        (["--direct_num_workers=2"], False),
    ],
)
def test_rebatch_warns_of_options_of_another_engine_only(argv: list[str], warned: bool) -> None:
    given = read_rebatch(argv)
    assert not given.problems
    assert bool(given.warnings) is warned


@pytest.mark.parametrize(
    "runner", ["dataflow", "DataflowRunner", "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"]
)
def test_a_runner_has_one_name_however_it_is_written(runner: str) -> None:
    assert read_launch([f"--runner={runner}"]).options.view_as(StandardOptions).runner == "DataflowRunner"
    assert read_launch(["--runner=FnApiRunner"]).options.view_as(StandardOptions).runner == BUILT_IN


def test_the_options_that_presets_give_are_known() -> None:
    for preset in PRESETS.values():
        for flag in (*preset.flags, *preset.streaming):
            assert not [one for one in read_rebatch([flag.option]).problems if "is an option of Flink" not in one.fix]


def test_every_option_that_is_named_as_an_engines_is_beams() -> None:
    names = {one.__name__: one for one in PipelineOptions.__subclasses__()}
    assert engine_options._ONLY.keys() <= names.keys()
    parser = argparse.ArgumentParser(add_help=False)
    engine_options._add_beams(parser)
    known: Any = parser._option_string_actions
    assert {*engine_options._ONLY_DATAFLOW, *engine_options._EVERY_WORKER} <= known.keys()


def test_a_customer_may_begin_with_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "why", f"--launch={tmp_path}", "--", "--5", "welcome")
    assert "holds no launch" in told
    assert Place(tmp_path).output.name == "out"
