"""CamVid from a repository that stands in for the source."""

import os
import subprocess
from functools import partial

import numpy as np
import pytest
from PIL import Image

from glamlib.data import fetch_camvid as module
from glamlib.data.datasets import load_dataset
from glamlib.data.fetch_camvid import fetch_camvid, main
from glamlib.data.published import PAIRS
from glamlib.errors import InputError

NAMES = [("test", "t1"), ("test", "t2"), ("train", "a"), ("val", "v")]


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(PAIRS, "camvid", {"train": 1, "val": 1, "test": 2})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A repository like the source: CamVid in a folder beside others, and a later commit that spoils it."""
    repository = tmp_path_factory.mktemp("source")
    git(repository, "init", "--quiet")
    git(repository, "config", "uploadpack.allowFilter", "true")
    (repository / "Models").mkdir()
    (repository / "Models" / "big.bin").write_bytes(bytes(1000))
    for number, (split, name) in enumerate(NAMES):
        images, labels = repository / "CamVid" / split, repository / "CamVid" / f"{split}annot"
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2)).save(images / f"{name}.png")
        Image.fromarray(np.full((2, 3), number, np.uint8)).save(labels / f"{name}.png")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "data")
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "CamVid" / "trainannot" / "a.png").write_bytes(b"spoiled")
    git(repository, "commit", "--quiet", "-a", "-m", "spoiled")
    return {"url": repository.as_uri(), "commit": commit, "spoiled": git(repository, "rev-parse", "HEAD")}


@pytest.fixture
def fetch(source):
    return partial(fetch_camvid, url=source["url"], commit=source["commit"])


def test_fetches_the_named_commits_camvid_and_nothing_else(fetch, tmp_path):
    dest = tmp_path / "data" / "camvid"
    assert fetch(dest) is True
    assert os.listdir(dest.parent) == ["camvid"]
    assert sorted(os.listdir(dest)) == ["test", "testannot", "train", "trainannot", "val", "valannot"]
    assert load_dataset("camvid", "train", root=dest)[0][1].unique().tolist() == [2]


def test_a_complete_folder_is_left_alone_in_either_layout_and_another_is_refused(fetch, tmp_path):
    dest = tmp_path / "camvid"
    fetch(dest)
    for split in ("train", "val", "test"):
        (dest / split).rename(dest / "images")
        (dest / split).mkdir()
        (dest / "images").rename(dest / split / "images")
        (dest / f"{split}annot").rename(dest / split / "labels")
    before = {file: file.stat().st_mtime_ns for file in dest.rglob("*")}
    assert fetch(dest, url="file:///nowhere") is False
    assert {file: file.stat().st_mtime_ns for file in dest.rglob("*")} == before
    (dest / "val" / "labels" / "v.png").unlink()
    with pytest.raises(InputError, match="camvid: exists and is not the complete CamVid; move it away"):
        fetch(dest)
    assert (dest / "train" / "images" / "a.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "file:///nowhere/at/all"}, "git fetch failed, so nothing was fetched: .*nowhere"),
        ({"commit": "0" * 40}, "git fetch failed, so nothing was fetched: .*0000"),
        ({"commit": "spoiled"}, "is not the complete CamVid: .*a.png: cannot be read"),
    ],
)
def test_failures_say_why_in_one_line_and_leave_nothing(source, fetch, tmp_path, change, message):
    change = {name: source.get(value, value) for name, value in change.items()}
    with pytest.raises(InputError, match=message) as caught:
        fetch(tmp_path / "camvid", **change)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_without_git_the_message_says_so(fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        fetch(tmp_path / "camvid")
    assert os.listdir(tmp_path) == []


def test_the_command_line_reports(fetch, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "fetch_camvid", fetch)
    dest = tmp_path / "camvid"
    for said in ("fetched and checked", "is already there and complete"):
        main([str(dest)])
        assert capsys.readouterr().out == f"{dest}: CamVid {said}\n"
    (dest / "val" / "v.png").unlink()
    for arguments, said in (([str(dest)], f"error: {dest}: exists and is not"), ([], "error: usage: python")):
        with pytest.raises(SystemExit, match=said):
            main(arguments)
