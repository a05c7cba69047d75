"""Which engine runs a job, and that the places where we change Beam are still as they were."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, StandardOptions
from apache_beam.runners.worker.bundle_processor import BundleProcessor
from apache_beam.runners.worker.sdk_worker import SdkWorker
from apache_beam.runners.worker.statesampler import StateSampler

from pipelines import engine
from pipelines.engine import BUILT_IN, PRISM, Engine, choose_engine

ON_PRISM = Engine(real_time=True, alone=True, reads_pubsub=False)
BUILT_IN_ONE = Engine(real_time=False, alone=True, reads_pubsub=False)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beam as it was, before and after."""
    monkeypatch.setattr(SdkWorker, "finalize_bundle", plain(SdkWorker.finalize_bundle))
    monkeypatch.setattr(SdkWorker, "process_bundle_split", SdkWorker.process_bundle_split)
    before, threshold = StateSampler.__init__.__defaults__, gc.get_threshold()
    yield
    StateSampler.__init__.__defaults__ = before
    gc.set_threshold(*threshold)
    gc.unfreeze()


def plain(finalise: Any) -> Any:
    """Beam's own method, where an earlier test has put ours in its place."""
    return finalise.__closure__[0].cell_contents if getattr(finalise, "quiet", False) else finalise


def chosen(*argv: str, ends: bool) -> tuple[str, bool, Engine]:
    """(runner, streaming, what it promises)."""
    options = PipelineOptions(list(argv))
    promised = choose_engine(options, ends=ends)
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
    assert chosen(*argv, ends=False) == (PRISM, True, ON_PRISM)
    assert chosen(*argv, ends=True) == ((PRISM, True, ON_PRISM) if prism_here else (BUILT_IN, False, BUILT_IN_ONE))


NAMED = {
    "FlinkRunner": Engine(real_time=True, alone=False, reads_pubsub=False),
    "DataflowRunner": Engine(real_time=True, alone=False, reads_pubsub=True),
    PRISM: ON_PRISM,
}


@pytest.mark.parametrize(("name", "promised"), NAMED.items(), ids=NAMED.keys())
@pytest.mark.parametrize("ends", [True, False])
def test_an_engine_that_was_named_stays(prism_here: bool, name: str, promised: Engine, ends: bool) -> None:
    assert chosen(f"--runner={name}", ends=ends) == (name, True, promised)


@pytest.mark.parametrize("ends", [True, False])
def test_the_built_in_engine_stays_when_it_was_named(prism_here: bool, ends: bool) -> None:
    assert chosen(f"--runner={BUILT_IN}", ends=ends) == (BUILT_IN, False, BUILT_IN_ONE)


def test_a_prism_that_was_named_is_taken_before_the_one_that_is_found(tmp_path: Path, prism_here: bool) -> None:
    mine = str(tmp_path / "mine")
    options = PipelineOptions([f"--prism_location={mine}"])
    choose_engine(options, ends=True)
    assert options.view_as(StandardOptions).runner == PRISM
    assert options.view_as(PrismRunnerOptions).prism_location == mine


def test_prism_is_where_the_variable_says_or_where_make_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", str(tmp_path / "none"))
    assert engine.prism() is None
    monkeypatch.delenv("CAMPAIGNS_PRISM")
    monkeypatch.setattr(engine, "_INSTALLED", tmp_path / "prism")
    assert engine.prism() is None
    (tmp_path / "prism").write_text("")
    assert engine.prism() == str(tmp_path / "prism")


def test_other_engines_get_beam_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (SdkWorker.finalize_bundle, SdkWorker.process_bundle_split, StateSampler.__init__.__defaults__)
    monkeypatch.setenv("CAMPAIGNS_PRISM", "/none")
    chosen(ends=True)
    chosen("--runner=FlinkRunner", ends=False)
    assert (SdkWorker.finalize_bundle, SdkWorker.process_bundle_split, StateSampler.__init__.__defaults__) == before


def worker(processor: Any) -> Any:
    """As much of an SdkWorker as finalising looks at."""
    cache = SimpleNamespace(lookup=lambda _: processor, release=lambda _: None, discard=lambda *_: None)
    return SimpleNamespace(bundle_processor_cache=cache)


def test_beam_still_says_what_we_answer_quietly_and_nothing_else_is_hidden() -> None:
    request = SimpleNamespace(instruction_id="bundle-1")
    with pytest.raises(RuntimeError, match="not in a finalizable state"):
        SdkWorker.finalize_bundle(worker(None), request, "i-1")
    chosen(f"--runner={PRISM}", ends=False)
    answer = SdkWorker.finalize_bundle(worker(None), request, "i-1")
    assert answer.instruction_id == "i-1"
    assert answer.WhichOneof("response") == "finalize_bundle"

    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        SdkWorker.finalize_bundle(worker(SimpleNamespace(finalize_bundle=fail)), request, "i-2")


def test_choosing_again_does_not_wrap_again() -> None:
    chosen(f"--runner={PRISM}", ends=False)
    first = SdkWorker.finalize_bundle
    chosen(f"--runner={PRISM}", ends=False)
    assert SdkWorker.finalize_bundle is first


def test_the_sampler_still_takes_its_period_as_its_only_default_and_it_is_now_5_ms() -> None:
    parameters = inspect.signature(StateSampler.__init__).parameters
    assert [name for name, one in parameters.items() if one.default is not one.empty] == ["sampling_period_ms"]
    chosen(f"--runner={PRISM}", ends=False)
    assert inspect.signature(StateSampler.__init__).parameters["sampling_period_ms"].default == 5


def test_a_split_is_answered_with_nothing() -> None:
    expected = list(inspect.signature(SdkWorker.process_bundle_split).parameters)
    chosen(f"--runner={PRISM}", ends=False)
    assert list(inspect.signature(SdkWorker.process_bundle_split).parameters)[1:] == expected[1:]
    answer = SdkWorker.process_bundle_split(worker(None), SimpleNamespace(), "i-3")
    assert answer.instruction_id == "i-3"
    assert answer.WhichOneof("response") == "process_bundle_split"
    assert not answer.process_bundle_split.channel_splits
    assert not answer.process_bundle_split.primary_roots
    assert not answer.process_bundle_split.residual_roots
    assert hasattr(BundleProcessor, "try_split")  # what the original asks
