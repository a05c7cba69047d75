"""A folder in Cloud Storage and its copy, against the stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.cloud import Bucket
from support.delivering import Delivery

from connectors.gcs import RemoteFolder, download_copy
from pipelines.rebatch.settings import Settings
from schemas.problems import JobError
from stores.live_config.live_files import LOOK_EVERY_S, REFRESH_EVERY_S

pytestmark = pytest.mark.engine


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_here_is_pulled_there_and_what_is_gone_goes(cloud: Bucket, tmp_path: Path) -> None:
    folder = RemoteFolder(f"{cloud.uri}/pushed")
    folder.make_folder()
    (folder.path / "a").mkdir()
    for name, text in (("one.txt", "1"), ("a/two.txt", "2"), ("a/.half.tmp", "half"), ("lock", "")):
        (folder.path / name).write_text(text)
    folder.push()
    assert cloud.names("pushed") == ["pushed/a/two.txt", "pushed/one.txt"]
    (folder.path / "one.txt").write_text("9")  # of the same length
    folder.push()
    shutil.rmtree(folder.path)

    other = RemoteFolder(f"{cloud.uri}/pushed")
    assert contents(other.pull()) == {"one.txt": "9", "a/two.txt": "2"}
    cloud.remove("pushed/one.txt")
    assert contents(other.pull()) == {"a/two.txt": "2"}
    assert contents(other.pull("a")) == {"two.txt": "2"}


def test_a_copy_of_a_file_of_a_folder_and_of_a_glob(cloud: Bucket, tmp_path: Path) -> None:
    (tmp_path / "day.1").mkdir()
    (tmp_path / "day.1" / "a.csv").write_text("a")
    there = cloud.put(tmp_path / "day.1", "copies/day.1")
    file, folder = download_copy(f"{there}/a.csv")
    assert (Path(file).read_text(), folder) == ("a", there)
    assert contents(Path(download_copy(there)[0])) == {"a.csv": "a"}
    glob, folder = download_copy(f"{there}/*.csv")
    assert (Path(glob).name, folder) == ("*.csv", there)
    cloud.put(tmp_path / "day.1" / "a.csv", "copies/day.1/a.csv")
    with pytest.raises(JobError, match=r"there is no gs://bucket/copies/day.1/b.csv"):
        RemoteFolder(there).download_file(RemoteFolder(there).path / "b.csv")


def test_a_bucket_that_is_not_there_is_told_with_the_role(cloud: Bucket) -> None:
    folder = RemoteFolder("gs://nowhere/x")
    folder.make_folder()
    (folder.path / "a").write_text("a")
    with pytest.raises(JobError, match=r"gs://nowhere/x/a could not be written .*Storage Object User"):
        folder.upload_file(folder.path / "a")


def wait_for_refresh(settings: Settings, now: list[float]) -> None:
    """Returns when an edit in the cloud is in the local copy."""
    now[0] += REFRESH_EVERY_S
    settings.current()
    assert settings.files.copy.refreshing is not None
    settings.files.copy.refreshing.join()
    now[0] += LOOK_EVERY_S


def test_settings_in_the_cloud_follow_an_edit_and_outlive_the_storage(
    cloud: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, now = Delivery(tmp_path).configure(), [0.0]
    there = cloud.put(made.campaigns, "live")
    settings = Settings(there, lambda: now[0])
    assert settings.workspace("aldi").paused is not True
    made.configure({"aldi": {"paused": True}})
    cloud.put(made.campaigns, "live")
    assert settings.workspace("aldi").paused is not True
    wait_for_refresh(settings, now)
    assert settings.workspace("aldi").paused is True
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    now[0] += REFRESH_EVERY_S
    assert settings.workspace("aldi").paused is True  # the storage is asked in a thread, for a minute
