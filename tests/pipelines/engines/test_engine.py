"""Which engine runs a job, and that the places where we change Beam are still as they were."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker.bundle_processor import BundleProcessor
from apache_beam.runners.worker.sdk_worker import SdkWorker
from apache_beam.runners.worker.statecache import StateCache
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.testing.util import assert_that, equal_to
from support.streams import CLUSTER, LOCAL, NO_TIMERS

from pipelines.engines import prism
from pipelines.engines.choose import choose_engine, expand_preset, prepare_engine
from pipelines.engines.presets import BUILT_IN, PRESETS, PRISM
from pipelines.engines.stable_ids import new_pipeline
from schemas.problems import InputError
from transforms.streaming.engine_traits import EngineTraits

ON_BUILT_IN = NO_TIMERS._replace(native_batches=True)
PATCHED = [
    (SdkWorker, "finalize_bundle"),
    (SdkWorker, "process_bundle_split"),
    (SdkWorker, "process_bundle_progress"),
    (StateSampler, "start"),
    (StateSampler, "stop"),
    (worker_handlers, "STATE_CACHE_SIZE_MB"),
]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beam as it was, before and after."""
    monkeypatch.setattr(SdkWorker, "finalize_bundle", plain(SdkWorker.finalize_bundle))
    for place, name in PATCHED[1:]:
        monkeypatch.setattr(place, name, getattr(place, name))
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def plain(finalise: Any) -> Any:
    """Beam's own method, where an earlier test has put ours in its place."""
    return finalise.__closure__[0].cell_contents if getattr(finalise, "quiet", False) else finalise


def chosen(*argv: str, drain: bool) -> tuple[str, bool, EngineTraits]:
    """(runner, streaming, what it promises)."""
    options = PipelineOptions(list(argv))
    promised = choose_engine(options, drain=drain)
    prepare_engine(options)
    standard = options.view_as(StandardOptions)
    return str(standard.runner), bool(standard.streaming), promised


@pytest.fixture(params=[True, False], ids=["with Prism", "without Prism"])
def prism_here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether Prism is on this machine."""
    monkeypatch.setenv("CAMPAIGNS_PRISM", str(tmp_path / "prism"))
    if request.param:
        (tmp_path / "prism").write_text("")
    return bool(request.param)


@pytest.mark.parametrize("argv", [(), ("--runner=DirectRunner",)])
def test_prism_runs_a_job_unless_it_is_missing_and_the_input_ends(prism_here: bool, argv: tuple[str, ...]) -> None:
    if prism_here:
        assert chosen(*argv, drain=False) == (PRISM, True, LOCAL)
    assert chosen(*argv, drain=True) == ((PRISM, True, LOCAL) if prism_here else (BUILT_IN, False, ON_BUILT_IN))


NAMED = {
    "FlinkRunner": CLUSTER._replace(early_finalization=True),
    "DataflowRunner": CLUSTER._replace(native_pubsub=True, native_batches=True),
    "SparkRunner": CLUSTER,
    PRISM: LOCAL,
}


@pytest.mark.parametrize(("name", "promised"), NAMED.items(), ids=NAMED.keys())
@pytest.mark.parametrize("drain", [True, False])
def test_an_engine_that_was_named_stays(prism_here: bool, name: str, promised: EngineTraits, drain: bool) -> None:
    if name == PRISM and not prism_here:
        return
    assert chosen(f"--runner={name}", drain=drain) == (name, True, promised)


def test_the_built_in_engine_stays_when_it_was_named(prism_here: bool) -> None:
    assert chosen(f"--runner={BUILT_IN}", drain=True) == (BUILT_IN, False, ON_BUILT_IN)


@pytest.mark.parametrize("argv", [(), ("--runner=DirectRunner",), (f"--runner={PRISM}",)])
def test_a_job_that_needs_prism_says_at_once_how_to_get_it(argv: tuple[str, ...], prism_here: bool) -> None:
    if prism_here:
        return
    with pytest.raises(InputError, match=r"run `make engines`, or set CAMPAIGNS_PRISM .*give --drain"):
        chosen(*argv, drain=False)


def test_a_drain_on_prism_that_is_missing_says_so_too(prism_here: bool) -> None:
    if prism_here:
        return
    with pytest.raises(InputError, match=r"(?m)run `make engines`, or set CAMPAIGNS_PRISM to its path$"):
        chosen(f"--runner={PRISM}", drain=True)


def test_the_built_in_engine_refuses_a_job_that_does_not_end(prism_here: bool) -> None:
    with pytest.raises(InputError, match=r"--on = direct\n.*give --drain"):
        chosen(f"--runner={BUILT_IN}", drain=False)


def test_a_prism_that_was_named_is_taken_before_the_one_that_is_found(tmp_path: Path, prism_here: bool) -> None:
    mine = str(tmp_path / "mine")
    options = PipelineOptions([f"--prism_location={mine}"])
    choose_engine(options, drain=True)
    assert options.view_as(StandardOptions).runner == PRISM
    assert options.view_as(PrismRunnerOptions).prism_location == mine


def test_prism_is_where_the_variable_says_or_where_make_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", str(tmp_path / "none"))
    assert prism.find_prism() is None
    monkeypatch.delenv("CAMPAIGNS_PRISM")
    monkeypatch.setattr(prism, "_INSTALLED", tmp_path / "prism")
    assert prism.find_prism() is None
    (tmp_path / "prism").write_text("")
    assert prism.find_prism() == str(tmp_path / "prism")


def test_other_engines_get_beam_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [getattr(place, name) for place, name in PATCHED]
    monkeypatch.setenv("CAMPAIGNS_PRISM", "/none")
    chosen("--runner=FlinkRunner", drain=False)
    chosen("--runner=FlinkRunner", drain=True)
    assert [getattr(place, name) for place, name in PATCHED] == before


@pytest.mark.filterwarnings("ignore:cannot collect")
def test_on_the_built_in_engine_state_is_read_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(f"--runner={BUILT_IN}", drain=True)
    monkeypatch.setattr(StateCache, "put", None)
    monkeypatch.setattr(StateCache, "get", None)
    pairs = [("a", number) for number in range(5)] + [("b", number) for number in range(4)]
    with beam.Pipeline(BUILT_IN) as p:
        batches = p | beam.Create(pairs) | beam.GroupIntoBatches(3)
        assert_that(
            batches | beam.Map(lambda batch: (batch[0], len(batch[1]))),
            equal_to([("a", 3), ("a", 2), ("b", 3), ("b", 1)]),
        )


def worker(processor: Any) -> Any:
    """As much of an SdkWorker as finalising looks at."""
    cache = SimpleNamespace(lookup=lambda _: processor, release=lambda _: None, discard=lambda *_: None)
    return SimpleNamespace(bundle_processor_cache=cache)


def test_beam_still_says_what_we_answer_quietly_and_nothing_else_is_hidden() -> None:
    request = SimpleNamespace(instruction_id="bundle-1")
    with pytest.raises(RuntimeError, match="not in a finalizable state"):
        inspect.unwrap(SdkWorker.finalize_bundle)(worker(None), request, "i-1")  # another test may have patched Beam
    chosen(f"--runner={PRISM}", drain=False)
    answer = SdkWorker.finalize_bundle(worker(None), request, "i-1")
    assert answer.instruction_id == "i-1"
    assert answer.WhichOneof("response") == "finalize_bundle"

    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        SdkWorker.finalize_bundle(worker(SimpleNamespace(finalize_bundle=fail)), request, "i-2")


def test_choosing_again_does_not_wrap_again() -> None:
    chosen(f"--runner={PRISM}", drain=False)
    first = SdkWorker.finalize_bundle
    chosen(f"--runner={PRISM}", drain=False)
    assert SdkWorker.finalize_bundle is first


SAMPLED = """
import sys, threading
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker.statesampler import StateSampler, get_current_tracker
from apache_beam.utils.counters import CounterFactory
from pipelines.engines.choose import prepare_engine
from pipelines.engines.presets import PRISM

if sys.argv[1] == "ours":
    prepare_engine(PipelineOptions([f"--runner={PRISM}"]))
sampler, before = StateSampler("a", CounterFactory()), threading.active_count()
sampler.start()
more = threading.active_count() - before
tracked = get_current_tracker() is sampler
sampler.stop_if_still_running()
print(more, tracked, get_current_tracker() is None)
"""


@pytest.mark.parametrize(("whose", "threads"), [("beam's", 1), ("ours", 0)])
def test_beam_samples_in_a_thread_of_its_own_and_here_it_does_not(whose: str, threads: int) -> None:
    """In a process of its own, since an earlier test may have changed Beam in this one."""
    printed = subprocess.run([sys.executable, "-c", SAMPLED, whose], check=True, capture_output=True, text=True)
    assert printed.stdout.split() == [str(threads), "True", "True"]


@pytest.mark.parametrize("asked", ["process_bundle_split", "process_bundle_progress"])
def test_a_split_and_a_question_for_progress_are_answered_with_nothing(asked: str) -> None:
    expected = list(inspect.signature(getattr(SdkWorker, asked)).parameters)
    chosen(f"--runner={PRISM}", drain=False)
    assert list(inspect.signature(getattr(SdkWorker, asked)).parameters)[1:] == expected[1:]
    answer = getattr(SdkWorker, asked)(worker(None), SimpleNamespace(), "i-3")
    assert (answer.instruction_id, answer.WhichOneof("response")) == ("i-3", asked)
    assert not getattr(answer, asked).ByteSize()
    assert hasattr(BundleProcessor, "try_split")  # what the original asks


def test_a_preset_is_a_list_of_options_each_with_its_reason() -> None:
    for preset in PRESETS.values():
        for flag in (*preset.flags, *preset.streaming):
            assert flag.option.startswith("--")
            assert len(flag.why) > 20


@pytest.mark.parametrize("asked", [["--on", "flink"], ["--on=flink"]])
def test_a_preset_takes_its_place_before_what_is_given_beside_it(asked: list[str]) -> None:
    made = expand_preset(["--events=file:e", *asked, "--parallelism=7"], streaming=True)
    assert "--on" not in " ".join(made)
    assert made[-2:] == ["--events=file:e", "--parallelism=7"]
    assert "--checkpointing_interval=5000" in made
    assert "--checkpointing_interval=5000" not in expand_preset(asked, streaming=False)
    options = PipelineOptions(expand_preset(["--on=direct"], streaming=False))
    assert options.view_as(StandardOptions).runner == BUILT_IN


def test_a_flink_of_ones_own_gets_beams_own_job_server() -> None:
    made = expand_preset(["--on=flink", "--flink_master=host:8081"], streaming=True)
    assert "--runner=FlinkRunner" in made
    assert not [one for one in made if one.startswith(("--job_endpoint", "--environment"))]


def test_an_engine_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="direct, prism, flink, dataflow"):
        expand_preset(["--on=spark"], streaming=True)


def test_without_a_preset_nothing_changes() -> None:
    assert expand_preset(["--a", "b", "--runner=X"], streaming=True) == ["--a", "b", "--runner=X"]


def test_a_step_more_changes_the_name_of_no_other() -> None:
    def names(*first: str) -> set[str]:
        p = new_pipeline(PipelineOptions([]))
        some = p | "Make" >> beam.Create([1], reshuffle=False)
        for label in first:
            some = some | label >> beam.Map(lambda one: one)
        _ = some | "Last" >> beam.Map(lambda one: one)
        components = p.to_runner_api().components
        return {*components.transforms, *components.pcollections}

    before, after = names(), names("New")
    assert before < after
    assert len([name for name in after - before if "New" in name]) == len(after - before) > 0
