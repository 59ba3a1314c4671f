import hashlib
import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glamlib.data import camvid as module
from glamlib.data.camvid import CAMVID, LABEL_DIGEST, fetch_camvid, label_digest, main
from glamlib.errors import InputError

REAL = Path(os.environ.get("GLAM_DATA") or Path(__file__).parents[2] / "shared" / "data") / "camvid"
needs_camvid = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real CamVid: set GLAM_DATA")
NAMES = [("test", "t1"), ("test", "t2"), ("train", "a"), ("val", "v")]


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A repository like the source: CamVid in a folder beside others, and a later commit that spoils it."""
    repository = tmp_path_factory.mktemp("source")
    git(repository, "init", "--quiet")
    git(repository, "config", "uploadpack.allowFilter", "true")
    (repository / "Models").mkdir()
    (repository / "Models" / "big.bin").write_bytes(bytes(1000))
    sha = hashlib.sha256()
    for number, (split, name) in enumerate(NAMES):
        images, labels = repository / "CamVid" / split, repository / "CamVid" / f"{split}annot"
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2)).save(images / f"{name}.png")
        Image.fromarray(np.full((2, 3), number, np.uint8)).save(labels / f"{name}.png")
        sha.update(f"{split}/{name} 2 3\n".encode() + bytes([number] * 6))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "data")
    commit = git(repository, "rev-parse", "HEAD")
    Image.new("L", (3, 2), 9).save(repository / "CamVid" / "trainannot" / "a.png")
    git(repository, "commit", "--quiet", "-a", "-m", "spoiled")
    return {"url": repository.as_uri(), "commit": commit, "digest": sha.hexdigest()}


def test_fetches_the_named_commits_camvid_and_nothing_else(source, tmp_path):
    dest = tmp_path / "data" / "camvid"
    assert fetch_camvid(dest, **source) is True
    assert os.listdir(dest.parent) == ["camvid"]
    assert sorted(os.listdir(dest)) == ["test", "testannot", "train", "trainannot", "val", "valannot"]
    assert CAMVID.open(dest, "train")[0][1].unique().tolist() == [2]  # not the later commit's 9


def test_a_complete_folder_is_left_alone_in_either_layout(source, tmp_path):
    dest = tmp_path / "camvid"
    fetch_camvid(dest, **source)
    for split in ("train", "val", "test"):
        (dest / split).rename(dest / "images")
        (dest / split).mkdir()
        (dest / "images").rename(dest / split / "images")
        (dest / f"{split}annot").rename(dest / split / "labels")
    before = {file: file.stat().st_mtime_ns for file in dest.rglob("*")}
    assert fetch_camvid(dest, **(source | {"url": "file:///nowhere"})) is False
    assert {file: file.stat().st_mtime_ns for file in dest.rglob("*")} == before


def test_an_incomplete_folder_is_refused_and_kept(source, tmp_path):
    dest = tmp_path / "camvid"
    fetch_camvid(dest, **source)
    (dest / "valannot" / "v.png").unlink()
    with pytest.raises(InputError, match="camvid: exists and is not the complete CamVid; move it away"):
        fetch_camvid(dest, **source)
    assert (dest / "train" / "a.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "file:///nowhere/at/all"}, "git fetch failed, so nothing was fetched: .*nowhere"),
        ({"commit": "0" * 40}, "git fetch failed, so nothing was fetched: .*0000"),
        ({"commit": "HEAD"}, r"gave commit \w{40}; expected HEAD"),
        ({"digest": "0" * 64}, r"the labels of commit \w{40} have SHA-256 \w{64}; expected 0000"),
    ],
    ids=["no network", "no such commit", "a branch", "other labels"],
)
def test_failures_say_why_in_one_line_and_leave_nothing(source, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        fetch_camvid(tmp_path / "camvid", **(source | change))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_commit_without_camvid_is_refused(source, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    (empty / "other").write_text("x")
    git(empty, "add", ".")
    git(empty, "commit", "--quiet", "-m", "x")
    change = {"url": empty.as_uri(), "commit": git(empty, "rev-parse", "HEAD")}
    with pytest.raises(InputError):
        fetch_camvid(tmp_path / "camvid", **(source | change))
    assert os.listdir(tmp_path) == ["empty"]


def test_without_git_the_message_says_so(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        fetch_camvid(tmp_path / "camvid", **source)
    assert os.listdir(tmp_path) == []


def test_it_works_inside_a_git_hook(source, tmp_path, monkeypatch):
    # There git sets these, and git commands elsewhere would work on the hook's repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert fetch_camvid(tmp_path / "camvid", **source)
    assert os.listdir(tmp_path) == ["camvid"]


def test_the_command_line_reports(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "fetch_camvid", partial(fetch_camvid, **source))
    dest = tmp_path / "camvid"
    assert main([str(dest)]) == 0
    assert capsys.readouterr().out == f"{dest}: CamVid fetched and verified\n"
    assert main([str(dest)]) == 0
    assert capsys.readouterr().out == f"{dest}: CamVid is already there and complete\n"
    (dest / "val" / "v.png").unlink()
    assert main([str(dest)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {dest}: exists and is not")
    assert said.err.count("\n") == 1


@needs_camvid
def test_the_real_labels_have_the_recorded_digest():
    assert label_digest(REAL) == LABEL_DIGEST
