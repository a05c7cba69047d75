import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.factories import SECRET, any_campaign, any_customers
from support.launching import ROOT, Place, any_place

from runners.cli.main import main


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


PLAIN: dict[str, Any] = {
    "engine": {"channels": {"email": {"address": "email"}}},
    "email": lambda n: f"c{n}@example.com",
    "lists": {},
}
"""Nobody is held out, shares an address or has had too many messages."""


def refused(place: Place, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What a launch says that must be refused before anything runs."""
    capsys.readouterr()
    assert place.launch(*more) == 2
    assert not (place.root / "events").exists()
    assert not (place.output / "manifest.json").exists()
    return capsys.readouterr().err


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown column", {"audience": "spent > 1"}, "spent"),
    ("text against a number", {"audience": "first_name > 5 + spend"}, "first_name > 5"),
    ("a condition that is no condition", {"audience": "spend + 1"}, "BOOLEAN"),
    ("an injection", {"audience": "spend > 0); DROP TABLE customers; --"}, "is not an SQL expression"),
    ("a sub-query", {"audience": "spend > (SELECT max(spend) FROM customers)"}, "sub-quer"),
    ("a file", {"audience": "length(read_text('/etc/passwd')) > 0"}, "read_text"),
    ("the clock", {"audience": "now() > TIMESTAMP '2020-01-01'"}, "use launched_at"),
    ("weights of 1.2", {"experiment": {"key": "e", "variants": [{"key": "a", "weight": 0.7}, {"key": "b", "weight": 0.5}]}}, "sum to 1.2"),
    ("a namespace out of range", {"experiment": {"key": "e", "namespace": {"key": "n", "range": [0.5, 1.5]}, "variants": [{"key": "a"}]}}, "less than or equal to 1"),
    ("a start after the end", {"schedule": {"start": "2026-04-02T09:00", "expires": "2026-04-01T09:00"}}, "is not before the end"),
    ("a list outside the folder", {"audience": {"list": "lists/../../customers.parquet"}}, "must stay inside the folder"),
    ("a missing list", {"audience": {"list": "lists/none.csv"}}, "there is no such file"),
    ("a missing unit", {"experiment": {"key": "e", "unit": "cookie", "variants": [{"key": "a"}]}}, "the customers have no such column"),
    ("a channel that is none", {"channel": "fax"}, "engine.yaml has no such channel"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_campaign_is_refused_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    text = refused(any_place(tmp_path, any_campaign(**changes), lists={}), capsys)
    assert told in text
    assert "welcome.yaml:" in text


def test_all_mistakes_of_all_files_come_in_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = any_place(tmp_path, *[any_campaign(**{"id": f"bad-{n}", **row[1]}) for n, row in enumerate(MISTAKES)])
    (tmp_path / "campaigns" / "bomb.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\nid: [*b, *b]\n")
    text = refused(place, capsys)
    assert all(f"bad-{n}.yaml:" in text for n in range(len(MISTAKES)))
    assert "aliases (*name) are not allowed" in text


def test_a_missing_column_of_the_customers_is_told_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    pq.write_table(any_customers(10).drop_columns(["retailer_id", "email"]), tmp_path / "customers.parquet")
    text = refused(place, capsys)
    assert "columns.retailer" in text
    assert "channels.email.address" in text
    assert "there are: customer_id, household" in text


def test_consents_that_are_no_booleans_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a consent is a BOOLEAN column" in refused(any_place(tmp_path, email_consent=lambda n: "yes"), capsys)


def test_missing_options_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch"]) == 2
    text = capsys.readouterr().err
    assert all(f"--{name}" in text for name in ("campaigns", "customers", "events", "output"))


def test_mistakes_of_the_command_line_and_of_the_files_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path, any_campaign(surprise=1))
    assert main(["launch", *place.argv("--batch_rows=0", "--events=kafka:x")]) == 2
    text = capsys.readouterr().err
    assert all(told in text for told in ("--batch_rows", "--events", "welcome.yaml:"))


def csv_of(table: pa.Table, spoil: dict[int, bytes]) -> bytes:
    """The customers as CSV, with some rows replaced."""
    rows = [
        b",".join(str(value).encode() if value is not None else b"" for value in row.values())
        for row in table.to_pylist()
    ]
    lines = [",".join(table.column_names).encode(), *[spoil.get(n, row) for n, row in enumerate(rows)]]
    return b"\n".join(lines) + b"\n"


def test_broken_rows_of_a_file_are_dead_letters_and_nobody_else_is_lost(tmp_path: Path) -> None:
    spoil = {
        3: b"short",
        5: b"c-5,store-2,2,\xff\xfe,c5@example.com,1,true,5.0,5",
        8: b"c-3,store-0,4,x,c3@example.com,+1,true,5.0,5",
    }
    place = any_place(
        tmp_path,
        any_campaign(experiment=None),
        engine={"channels": {"email": {"address": "email", "consent": "email_consent"}}},
    )
    table = any_customers(300)
    (tmp_path / "customers.csv").write_bytes(
        csv_of(table, {**spoil, 9: b"c-6,store-0,4,x,c3@example.com,+1,true,5.0,5"})
    )
    assert place.launch(f"--customers={tmp_path / 'customers.csv'}") == 0
    letters = {letter.reason: letter for letter in place.dead_letters()}
    assert set(letters) == {"wrong_columns", "broken_text", "duplicate_customer"}
    assert letters["wrong_columns"].data == b"short"
    assert letters["broken_text"].data == spoil[5]
    assert len(place.events()) == 300 - 3
    assert main(["check", str(place.output)]) == 0


def test_broken_text_in_parquet_is_a_dead_letter_and_nobody_else_is_lost(tmp_path: Path) -> None:
    names = pa.array([b"B\xffb" if n == 17 else b"Ann" for n in range(100)], pa.binary()).view(pa.string())
    place = any_place(tmp_path, any_campaign(experiment=None), **PLAIN)
    table = any_customers(100).drop_columns(["first_name"]).append_column("first_name", names)
    pq.write_table(table, tmp_path / "customers.parquet")
    assert place.launch("--batch_rows=10") == 0
    (letter,) = place.dead_letters()
    assert (letter.reason, letter.step) == ("broken_text", "CheckCustomers")
    assert rb"B\\xffb" in letter.data
    assert len(place.events()) == 99
    assert main(["check", str(place.output)]) == 0


def test_texts_of_ten_megabytes_arrive_whole(tmp_path: Path) -> None:
    huge = "x" * 10_000_000
    place = any_place(tmp_path, any_campaign(experiment=None), customers=4, first_name=["a", huge, None, "d"])
    assert place.launch() == 0
    assert {len(e["properties"]["name"] or "") for e in place.events().values()} == {1, 0, 10_000_000}
    assert main(["check", str(place.output)]) == 0


def test_a_condition_that_fails_for_a_value_counts_that_customer_as_not_matched(tmp_path: Path) -> None:
    place = any_place(tmp_path, any_campaign(audience="CAST(first_name AS INTEGER) >= 0", experiment=None),
                      **PLAIN, customers=50, first_name=lambda n: "x" if n == 7 else str(n))  # fmt: skip
    assert place.launch() == 0
    assert "c-7" not in {event["customer_id"] for event in place.events().values()}
    assert len(place.events()) == 49
    assert "1 customers make this condition raise an error, such as c-7" in (place.output / "summary.json").read_text()


def limited(place: Place, size: int) -> subprocess.CompletedProcess[str]:
    """A launch in a process that may write no file of more than so many bytes."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.launch", *place.argv("--batch_rows=500")],
        cwd=ROOT, env={**os.environ, "CAMPAIGNS_CODE_SECRET": SECRET}, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


def test_a_file_that_may_not_grow_stops_the_launch_which_then_resumes_to_the_same_events(tmp_path: Path) -> None:
    calm, tight = any_place(tmp_path / "calm", customers=2000), any_place(tmp_path / "tight", customers=2000)
    assert calm.launch("--batch_rows=500") == 0
    stopped = limited(tight, 100_000)
    assert stopped.returncode == 1
    assert "run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert tight.launch("--batch_rows=500") == 0
    assert tight.events() == calm.events()
    assert main(["check", str(tight.output)]) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount a small disk; run as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_launch_which_then_resumes_to_the_same_events(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = any_place(tmp_path / "calm", customers=3000)
    assert calm.launch("--batch_rows=500") == 0
    tight = any_place(tmp_path / "tight", customers=3000)
    (tight.root / "events").symlink_to(small_disk / "events")
    (small_disk / "events").mkdir()
    (small_disk / "filler").write_bytes(b"x" * 1_500_000)
    capsys.readouterr()
    assert tight.launch("--batch_rows=500") == 1
    assert "No space left on device" in capsys.readouterr().err
    (small_disk / "filler").unlink()
    assert tight.launch("--batch_rows=500") == 0
    assert tight.events() == calm.events()
    assert main(["check", str(tight.output)]) == 0


@pytest.mark.parametrize("place_of_it", ["under a file", "without permission"])
def test_an_output_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place_of_it: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = any_place(tmp_path)
    if place_of_it == "under a file":
        output = tmp_path / "campaigns" / "engine.yaml" / "out"
    else:
        output = tmp_path / "locked"
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere, so the refusal is played
    argv = [option for option in place.argv() if not option.startswith("--output")]
    assert main(["launch", *argv, f"--output={output}"]) == 1
    text = capsys.readouterr().err
    assert "could not be written" in text
    assert str(output) in text


@pytest.mark.parametrize(
    ("option", "output"),
    [
        ("--campaigns=campaigns", "."),
        ("--customers=out/snapshot/a.parquet", "out"),
        ("--sticky=out/sticky.parquet", "out"),
        ("--history=out", "out"),
        ("--history=out/exposures/a.parquet", "out"),
    ],
)
def test_an_input_that_the_launch_would_write_over_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = {
        "--campaigns": "campaigns",
        "--customers": "customers.parquet",
        "--events": "file:events",
        "--output": output,
    }
    name, _, value = option.partition("=")
    given[name] = value
    assert main(["launch", *(f"{name}={value}" for name, value in given.items())]) == 2
    text = capsys.readouterr().err
    assert option.replace("=", " = ") in text
    assert "lies where this launch writes its own files" in text
    assert (tmp_path / "campaigns" / "engine.yaml").exists()


def test_the_sticky_file_of_an_earlier_launch_is_no_own_file(tmp_path: Path) -> None:
    first, second = any_place(tmp_path / "a"), any_place(tmp_path / "b")
    assert first.launch() == 0
    assert second.launch(f"--sticky={first.output / 'sticky.parquet'}", f"--history={first.output}") == 0
