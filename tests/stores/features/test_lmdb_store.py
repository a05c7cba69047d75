"""The embedded store: growth, folders that are not there yet, damaged or foreign, a full disk, and many handles."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
from support.disks import fill, small_disk
from support.feature_stores import ROOT, any_row, start_writer

from schemas.features.stamps import Stamp
from schemas.problems import JobError
from stores.features.lmdb_store import LmdbStore

G = "g@1"


def rows_of(count: int, position: int, size: int = 4_000) -> dict[str, bytes]:
    return {f"e{number}": any_row(0, position, bytes(size)) for number in range(count)}


def test_a_store_grows_beyond_its_map_under_readers_of_other_processes(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, step=1 << 20)
    store.write(G, 0, {"e0": any_row(0, 1)})
    script = (
        "import sys; from pathlib import Path; from stores.features.lmdb_store import LmdbStore\n"
        "store = LmdbStore(Path(sys.argv[1]), read_only=True, step=1 << 20)\n"
        "for line in sys.stdin: print(len(store.read([('g@1', 'e999')])[0]), flush=True)\n"
    )
    reader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert reader.stdin is not None
    assert reader.stdout is not None
    for rows, seen in [({}, "0\n"), (rows_of(1_000, 2), "1\n"), (rows_of(3_000, 3), "1\n")]:
        store.write(G, 0, rows)
        reader.stdin.write("read\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == seen
    reader.stdin.close()
    assert reader.wait() == 0
    assert (tmp_path / "data.mdb").stat().st_size > 10 << 20
    store.close()


def test_a_writer_goes_on_after_another_process_made_the_map_larger(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, step=1 << 16)
    store.write(G, 0, {"mine": any_row(0, 1)})
    writer = start_writer(f"lmdb:{tmp_path}", G, 1, 3_000, 1)
    writer.communicate()
    assert store.write(G, 0, {"mine": any_row(0, 2)}) == 1
    assert store.rows(G, 1, ["e2999"]) == [any_row(0, 1)]
    store.close()


def test_a_reader_may_start_before_the_folder_has_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    reader = LmdbStore(folder, read_only=True)
    with pytest.raises(JobError, match="there is no feature store here"):
        reader.read([(G, "a")])
    writer = start_writer(f"lmdb:{folder}", G, 0, 3, 5)
    writer.communicate()
    assert reader.read([(G, "e2")]) == [[any_row(0, 5)]]
    assert reader.positions(G) == {0: Stamp(0, 5)}
    reader.close()


def test_stores_of_one_folder_in_a_process_share_it_and_the_last_closes_it(tmp_path: Path) -> None:
    LmdbStore(tmp_path).close()
    reader = LmdbStore(tmp_path, read_only=True)
    assert reader.read([(G, "a")]) == [[]]
    writer = LmdbStore(tmp_path / "." / "")  # what was opened to be read is opened again to be written
    writer.write(G, 0, {"a": any_row(0, 1)})
    assert reader.read([(G, "a")]) == [[any_row(0, 1)]]
    writer.close()
    assert reader.read([(G, "a")]) == [[any_row(0, 1)]]
    reader.close()
    lmdb.open(str(tmp_path), max_dbs=2).close()  # refused while it is open


def test_threads_read_while_one_writes_and_the_map_grows(tmp_path: Path) -> None:
    store, wrong, stop = LmdbStore(tmp_path, step=1 << 16), list[object](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                (rows,) = store.read([(G, "e7")])
                wrong.extend(row for row in rows if len(row) != 4_012)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for position in range(1, 20):
        store.write(G, 0, rows_of(100, position))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    store.close()


def test_a_store_that_is_read_only_does_not_write(tmp_path: Path) -> None:
    LmdbStore(tmp_path).close()
    reader = LmdbStore(tmp_path, read_only=True)
    with pytest.raises(JobError, match="opened to be read"):
        reader.write(G, 0, {"a": any_row(0, 1)})
    reader.close()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: os.urandom(len(data)),
        lambda data: data[: len(data) // 3],
        lambda data: b"PAR1" * 16 + data[64:],
        lambda data: b"x",
        lambda data: bytes(len(data)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path, damage: object, read_only: bool) -> None:
    store = LmdbStore(tmp_path)
    store.write(G, 0, rows_of(100, 1))
    store.close()
    file = tmp_path / "data.mdb"
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(JobError, match=r"does not open.*Move the folder away"):
        LmdbStore(tmp_path, read_only=read_only).read([(G, "e1")])


def test_files_of_another_program_are_told_apart(tmp_path: Path) -> None:
    other = lmdb.open(str(tmp_path), max_dbs=2)
    with other.begin(write=True) as txn:
        txn.put(b"key", b"value")
    other.close()
    with pytest.raises(JobError, match="not a feature store"):
        LmdbStore(tmp_path, read_only=True).read([(G, "a")])


def test_a_path_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JobError, match="no folder can be made here"):
        LmdbStore(tmp_path / "file")
    with pytest.raises(JobError, match=r"there is no feature store here|does not open"):
        LmdbStore(tmp_path / "file", read_only=True).read([(G, "a")])


def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path, 8) as folder:
        store = LmdbStore(folder / "store", step=64 << 20)
        store.write(G, 0, rows_of(100, 1))
        filling = fill(folder, 200_000)
        with pytest.raises(JobError, match=r"cannot be written.*Free space"):
            store.write(G, 0, rows_of(300, 2))
        assert store.rows(G, 0, ["e99"])[0] is not None
        filling.unlink()
        assert store.write(G, 0, rows_of(300, 60)) == 300
        store.close()


def test_places_of_killed_readers_are_freed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    script = (
        "import sys; from pathlib import Path; from stores.features.lmdb_store import LmdbStore\n"
        "store = LmdbStore(Path(sys.argv[1]), read_only=True)\n"
        "with store._files.reading('rows'): print('in', flush=True); sys.stdin.read()\n"
    )
    for _ in range(3):
        reader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert reader.stdout is not None
        reader.stdout.readline()
        reader.kill()
        reader.wait()
    env = store._files._env
    assert env.info()["num_readers"] >= 1
    store.close()
    assert LmdbStore(tmp_path)._files._env.reader_check() == 0  # opening has freed them
