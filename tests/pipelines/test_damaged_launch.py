"""Each file of a launch's folder, damaged in each way: every command gives the right result, or names the file."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from factories import SECRET
from launching import Place, any_place

from runners.main import main
from stores.ledger.open import open_ledger


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x11
    path.write_bytes(data)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "delete": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "halve": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flip": flip,
    "replace by a folder": replace_by_folder,
}
IDLE = (".lock", "report.html")
"""Files that nothing reads."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A finished launch whose customers are a CSV file, so that there is a snapshot, and the ledger of a delivery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
        root = tmp_path_factory.mktemp("sound")
        place = any_place(root / "place", customers=120)
        customers = pq.read_table(root / "place" / "customers.parquet")
        pacsv.write_csv(customers, root / "place" / "customers.csv")
        with open(root / "place" / "customers.csv", "a") as file:
            file.write("short\n")
        assert launch(place) == 0
        assert sorted(path.name for path in place.output.iterdir()) == sorted([
            ".lock", "campaigns", "dead_letters", "exposures", "manifest.json", "report.html", "snapshot",
            "sticky.parquet", "summary.json", "survey",
        ])  # fmt: skip
        (root / "place" / "delivery" / "receipts").mkdir(parents=True)
        ledger = open_ledger(f"sqlite:{root / 'place' / 'delivery' / 'ledger.db'}")
        ledger.open()
        ledger.close()
        yield place


def launch(place: Place) -> int:
    return place.launch(f"--customers={place.root / 'customers.csv'}", "--batch_rows=50")


COMMANDS: dict[str, Callable[[Place], int]] = {
    "launch": launch,
    "check": lambda place: main(["check", str(place.output)]),
    "report": lambda place: main(["report", str(place.output)]),
    "why": lambda place: main(["why", "c-9", "codes", "--launch", str(place.output)]),
    "verify-code": lambda place: main(["verify-code", "X", "--launch", str(place.output), "--offer", "five"]),
    "cancel": lambda place: main(["ledger", "cancel", str(place.root / "delivery"), "--launch", str(place.output),
                                  "--campaign", "listed"]),
}  # fmt: skip


def files_of(place: Place) -> list[Path]:
    """The files of the launch's folder and of its events, one of each kind where there are many alike."""
    every = sorted(path for path in place.output.rglob("*") if path.is_file())
    found = [path.relative_to(place.root) for path in every]
    found = [
        path for path in found if path.name not in IDLE and not path.name.endswith(("-001.parquet", "-002.parquet"))
    ]
    return [*found, sorted(place.root.glob("events/*.avro"))[0].relative_to(place.root)]


def run(command: str, place: Place, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = COMMANDS[command](place)
    printed = capsys.readouterr()
    return code, (printed.out + printed.err).replace(str(place.root), "PLACE")


def named(path: Path, told: str) -> bool:
    """Whether what was said names the file, or the folder of it that is to be put right."""
    return (
        path.name in told
        or f"PLACE/{path.parent} " in told
        or f"{path.parents[-3] if len(path.parts) > 2 else path} " in told
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_file_is_named_or_does_not_matter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sound: Place,
    command: str,
    damage: str,
) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
    place = sound
    kept = tmp_path / "kept"
    shutil.copytree(place.root, kept)
    run(command, place, capsys)  # the first time tells what it warns of once
    restore(kept, place.root)
    right = run(command, place, capsys)
    restore(kept, place.root)
    events = place.events()
    for path in files_of(place):
        if (command, damage, path.suffix) == ("launch", "flip", ".avro"):
            continue  # a record that is another one, but whole: nothing in the file says so
        DAMAGES[damage](place.root / path)
        code, told = run(command, place, capsys)
        assert code in (0, 1, 2), path
        assert "Traceback" not in told
        if (code, told) != right and not (command == "launch" and code == 0):
            if damage == "delete" and path.parts[-2] == "exposures":  # the batch is not done, and that is what is said
                assert "2 of 3 batches done" in told or "its batch is not done" in told or "summary.json" in told
                restore(kept, place.root)
                continue
            assert code, (path, told)
            assert named(path, told), (path, told)
        if command == "launch" and code == 0:
            assert place.events() == events, path
            assert main(["check", str(place.output)]) == 0 or path.parts[-2] == "campaigns", (path, capsys.readouterr())
        restore(kept, place.root)


def restore(kept: Path, root: Path) -> None:
    shutil.rmtree(root)
    shutil.copytree(kept, root)
