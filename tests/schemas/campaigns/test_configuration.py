from pathlib import Path
from typing import Any

import pytest
from support.factories import any_campaign, any_engine, any_folder

from schemas.campaigns.configuration import load_configuration, load_engine


def problems_of(folder: Path) -> dict[str, str]:
    """field → what to do, of every problem."""
    return {f"{p.file}:{p.field}": p.fix for p in load_configuration(folder)[1]}


def test_a_sound_folder_has_no_problems(tmp_path: Path) -> None:
    config, problems = load_configuration(any_folder(tmp_path))
    assert problems == []
    assert config is not None
    assert [campaign.id for campaign in config.campaigns] == ["welcome"]
    assert len(config.versions["welcome"]) == 12


def test_campaigns_are_in_order_of_priority_then_id(tmp_path: Path) -> None:
    folder = any_folder(tmp_path, any_campaign(id="b"), any_campaign(id="a"), any_campaign(id="c", priority=1))
    config, _ = load_configuration(folder)
    assert config is not None
    assert [campaign.id for campaign in config.campaigns] == ["c", "a", "b"]


def test_every_mistake_of_every_file_is_in_one_report(tmp_path: Path) -> None:
    folder = any_folder(
        tmp_path,
        any_campaign(id="one", chanel="email", audience={"audience": "gone"}),
        any_campaign(id="two", channel="fax", audience={"all": ["spend > 1", {"list": "lists/no.csv"}]}),
        engine=any_engine(retailers={"*": {"time_zone": "America/Chikago"}}),
    )
    found = problems_of(folder)
    assert "did you mean 'channel'?" in found["one.yaml:chanel"]
    assert "audiences/gone.yaml" in found["one.yaml:audience.audience"]
    assert "no such file" in found["two.yaml:audience.all.1.list"]
    assert "no IANA time zone" in found["engine.yaml:retailers.*.time_zone"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"experiment": {"key": "k", "variants": [{"key": "a", "weight": 0.6}, {"key": "b", "weight": 0.6}]}},
         "experiment.variants", "sum to 1.2, not to 1: take 0.2 from them"),
        ({"experiment": {"key": "k", "variants": [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.495}]}},
         "experiment.variants", "sum to 0.995, not to 1: add 0.005 to them"),
        ({"experiment": {"key": "k", "variants": [{"key": "a"}], "namespace": {"key": "n", "range": [0.5, 1.5]}}},
         "experiment.namespace.range.1", "less than or equal to 1"),
        ({"experiment": {"key": "k", "variants": [{"key": "a"}], "namespace": {"key": "n", "range": [0.6, 0.5]}}},
         "experiment.namespace", "below its end"),
        ({"experiment": {"key": "k", "variants": [{"key": "a"}, {"key": "a"}]}}, "experiment.variants", "same key"),
        ({"experiment": {"key": "k", "variants": [{"key": "a"}], "force": {"c-1": "z"}}}, "experiment", "no variant"),
        ({"schedule": {"start": "2026-04-02T00:00", "expires": "2026-04-01T00:00"}}, "schedule", "not before the end"),
        ({"schedule": {"quiet_hours": [1260, "08:00"]}}, "schedule.quiet_hours.0", "in quotes"),
        ({"content": {"offers": ["gone"]}}, "", "'gone' is used but not declared"),
        ({"offers": [{"id": "x", "kind": "code_list"}]}, "offers.0", "codes: FILE"),
        ({"offers": [{"id": "x", "kind": "fixed", "on_exhausted": "suppress"}]}, "offers.0", "nothing else runs out"),
        ({"audience": {"list": "../secret.csv"}}, "audience.list", "must stay inside"),
        ({"audience": {"sql": "x"}}, "audience", "must be an SQL condition in quotes"),
        ({"surface": "shop"}, "surface", "'marketplace' or 'storefront'"),
        ({"retailers": ["*", "!store-1"]}, "retailers", "write it alone"),
        ({"retailers": "store-1"}, "retailers", "must be a list"),
        ({"retailers": []}, "retailers", "name one at least"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_field_and_what_to_do(
    tmp_path: Path, change: dict[str, object], field: str, says: str
) -> None:
    found = problems_of(any_folder(tmp_path, any_campaign(**change)))
    assert any(key == f"welcome.yaml:{field}" and says in fix for key, fix in found.items()), found


def test_a_problem_names_the_line(tmp_path: Path) -> None:
    folder = any_folder(tmp_path)
    (folder / "welcome.yaml").write_text("id: welcome\nsurface: storefront\nchannel: email\naudience: a > 1\nwho: me\n")
    (problem,) = load_configuration(folder)[1]
    assert (problem.field, problem.line) == ("who", 5)
    assert str(problem).startswith("welcome.yaml:5  who = me")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: &x [1]\nb: [*x, *x]\n", "aliases"),
        (b"id: x\nid: y\n", "stands twice"),
        (b"id: [1\n", "not valid YAML"),
        (b"id: \xff\xfe\n", "not UTF-8"),
        (b"- 1\n- 2\n", "must be a mapping"),
        (b"", "write a campaign here"),
        (b"a: " + b"[" * 5000, "not valid YAML|nested too deeply"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        (b"x" * 1_000_001, "larger than"),
    ],
    ids=["bomb", "twice", "broken", "bytes", "list", "empty", "deep", "tag", "huge"],
)
def test_a_file_that_is_no_configuration_is_distinguished(tmp_path: Path, text: bytes, says: str) -> None:
    folder = any_folder(tmp_path)
    (folder / "bad.yaml").write_bytes(text)
    expected = " ".join(f"{p.value} {p.fix}" for p in load_configuration(folder)[1] if p.file == "bad.yaml")
    assert any(part in expected for part in says.split("|")), expected


def test_words_of_old_yaml_stay_text(tmp_path: Path) -> None:
    folder = any_folder(tmp_path)
    (folder / "welcome.yaml").write_text(
        "id: welcome\nsurface: storefront\nchannel: email\naudience: a > 1\nretailers: [NO, 21:00]\n"
        "schedule: {quiet_hours: [21:00, 08:00], start: 2026-04-01T09:00:00}\n"
    )
    config, problems = load_configuration(folder)
    assert problems == []
    assert config is not None
    assert config.campaigns[0].retailers == ("NO", "21:00")


def test_two_campaigns_with_one_id_are_refused(tmp_path: Path) -> None:
    folder = any_folder(tmp_path)
    (folder / "again.yaml").write_text((folder / "welcome.yaml").read_text())
    assert "ids are unique" in problems_of(folder)["welcome.yaml:id"]


def test_a_suppression_list_of_an_unknown_channel_is_refused(tmp_path: Path) -> None:
    rule = {"file": "lists/out.csv", "channel": "emial"}
    folder = any_folder(tmp_path, engine=any_engine(suppression_lists=[rule]), lists={"out.csv": "c-1\n"})
    fix = problems_of(folder)["engine.yaml:suppression_lists.0.channel"]
    assert fix == "is no channel of this file; it has: email, sms"


def test_a_file_that_would_not_be_read_is_refused(tmp_path: Path) -> None:
    folder = any_folder(tmp_path)
    (folder / "second.yml").write_text((folder / "welcome.yaml").read_text())
    assert "name it .yaml" in problems_of(folder)["second.yml:"]


@pytest.mark.parametrize("name", ["email/more.yaml", "email/more.yml", "audiences/old/more.yaml", "lists/more.yaml"])
def test_a_file_in_a_folder_below_is_refused(tmp_path: Path, name: str) -> None:
    folder = any_folder(tmp_path)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("id: more\n")
    (found,) = load_configuration(folder)[1]
    assert (found.file, "would not be read: move it" in found.fix) == (name, True)


def test_another_folder_of_campaigns_below_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    folder = any_folder(tmp_path)
    any_folder(folder / "out" / "campaigns", audiences={"rich": "spend > 9"})
    any_folder(folder / "other")
    (folder / ".github").mkdir()
    (folder / ".github" / "ci.yaml").write_text("x: 1\n")
    assert load_configuration(folder)[1] == []


@pytest.mark.parametrize("text", ["audience: [", "audience: {any: []}\nmore: 1\n", "", "- a\n", "\ud800"])
def test_a_broken_audience_is_one_mistake_and_not_also_a_missing_one(tmp_path: Path, text: str) -> None:
    folder = any_folder(tmp_path, any_campaign(audience={"audience": "rich"}), audiences={"rich": "spend > 9"})
    (folder / "audiences" / "rich.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = load_configuration(folder)[1]
    assert found
    assert {problem.file for problem in found} == {"audiences/rich.yaml"}


def test_audiences_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    folder = any_folder(
        tmp_path,
        any_campaign(audience={"audience": "x"}),
        audiences={"x": {"not": {"audience": "y"}}, "y": {"any": ["a > 1", {"audience": "x"}]}},
    )
    assert "contains itself" in problems_of(folder)["audiences/x.yaml:audience"]


def test_a_folder_that_is_missing_or_empty_is_reported(tmp_path: Path) -> None:
    assert "is not a folder" in load_configuration(tmp_path / "no")[1][0].fix
    (tmp_path / "engine.yaml").write_text("channels: {email: {address: email}}")
    assert any("holds no campaign" in p.fix for p in load_configuration(tmp_path)[1])


def test_the_files_of_the_workspaces_must_be_there_and_belong_to_the_configuration(tmp_path: Path) -> None:
    warm_up = {"started": "2026-04-01", "signals": "lists/signals.csv"}
    workspaces: dict[str, Any] = {
        "*": {"templates": {"plain": "lists/plain.liquid", "odd": "lists/../../odd.liquid"}},
        "kroger": {"pace": {"warm_up": warm_up}},
    }
    folder = any_folder(tmp_path / "campaigns", engine=any_engine(workspaces=workspaces))
    found = problems_of(folder)
    assert "no such file" in found["engine.yaml:workspaces.*.templates.plain"]
    assert "must stay inside" in found["engine.yaml:workspaces.*.templates.odd"]
    assert "no such file" in found["engine.yaml:workspaces.kroger.pace.warm_up.signals"]
    del workspaces["*"]["templates"]["odd"]
    lists = {"plain.liquid": "Hi", "signals.csv": ""}
    config, problems = load_configuration(any_folder(folder, engine=any_engine(workspaces=workspaces), lists=lists))
    assert problems == []
    assert config is not None
    assert {"lists/plain.liquid", "lists/signals.csv"} <= set(config.files)


def test_the_engine_is_read_without_its_campaigns(tmp_path: Path) -> None:
    folder = any_folder(tmp_path, any_campaign(chanel="email"))
    engine, problems = load_engine(folder)
    assert (engine is not None, problems) == (True, [])
    (folder / "engine.yaml").unlink()
    assert [problem.file for problem in load_engine(folder)[1]] == ["engine.yaml"]
