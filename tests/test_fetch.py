"""`make camvid`, `brains` and `hippocampus`, from repositories and an archive that stand in for the sources."""

import hashlib
import os
import subprocess
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from conftest import REPOSITORY
from nifti_files import save
from PIL import Image

from glamlib.data.volume_sets import BRAIN_TRAIN

CHECK = """#!/bin/sh
test "$2" = glamlib || exec "{python}" "$@"
exec "{python}" -c '
import sys
from glamlib.cli import main
from glamlib.data.published import PAIRS
PAIRS["camvid"] = {{"train": 1, "val": 1, "test": 2}}
sys.exit(main(sys.argv[3:]))' "$@"
"""


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def commit(source):
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "data")
    return git(source, "rev-parse", "HEAD").strip()


@pytest.fixture
def source(tmp_path):
    """A repository without a commit, whose address must end in .git."""
    folder = tmp_path / "source.git"
    folder.mkdir()
    (folder / "README").write_text("not fetched")
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


@pytest.fixture
def make(tmp_path):
    """What runs make for a data set whose source is told: its exit status, and what it said."""
    python = tmp_path / "python"
    python.write_text(CHECK.format(python=sys.executable))
    python.chmod(0o755)

    def run(name, *told):
        variables = {f"FROM_{name}": " ".join(told), "GLAM_DATA": tmp_path / "my data", "PYTHON": python}
        command = ["make", name, *(f"{key}={value}" for key, value in variables.items())]
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return made.returncode, made.stdout + made.stderr

    return run


def write_case(image, label, *labels):
    """A volume whose values and labels change along an axis."""
    for path, values in ((image, (0, 90, 255)), (label, labels)):
        save(path, np.broadcast_to(values, (3, 3, 3)), dtype=np.uint8)


@pytest.mark.slow
def test_the_named_commits_camvid_is_fetched_whole_or_not_at_all(tmp_path, source, make):
    for number, (split, name) in enumerate([("test", "t1"), ("test", "t2"), ("train", "a"), ("val", "v")]):
        for place, value in ((split, 0), (f"{split}annot", number)):
            (source / "CamVid" / place).mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), value).save(source / "CamVid" / place / f"{name}.png")
    good = commit(source)
    (source / "CamVid" / "trainannot" / "a.png").write_bytes(b"spoiled")
    bad = commit(source)
    for url, which, why in (
        ("file:///nowhere/at/all.git", good, "nowhere"),
        (source.as_uri(), bad, "a.png: cannot be read"),
    ):
        status, said = make("camvid", url, which, "CamVid")
        assert status
        assert why in said
        assert not (tmp_path / "my data" / "camvid").exists()
    status, said = make("camvid", source.as_uri(), good, "CamVid")
    assert status == 0, said
    assert os.listdir(tmp_path / "my data") == ["camvid"]
    found = sorted(os.listdir(tmp_path / "my data" / "camvid"))
    assert found == ["test", "testannot", "train", "trainannot", "val", "valannot"]


@pytest.mark.slow
def test_brains_are_fetched(tmp_path, source, make):
    names = [*BRAIN_TRAIN, *(str(number) for number in range(1100, 1120))]
    for name in names:
        image, label = (source / "inst" / "extdata" / f"{name}_{kind}.nii.gz" for kind in ("SS", "glm"))
        write_case(image, label, 0, 100, 102)
        (image.parent / f"{name}_tissues.nii.gz").write_bytes(b"nothing reads it")
    status, said = make("brains", source.as_uri(), commit(source), "inst/extdata")
    assert status == 0, said
    assert "train: 15" in said
    assert "test: 20" in said
    assert os.listdir(tmp_path / "my data") == ["brains"]


@pytest.fixture
def server(tmp_path):
    """The address of a web server of what is in the test's folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_hippocampus_is_fetched_if_its_archive_is_whole(tmp_path, server, make):
    inside = "Task04_Hippocampus"
    held_out = (REPOSITORY / "glamlib" / "data" / "hippocampus_val.csv").read_text().split()
    for name in (f"{stem}.nii.gz" for stem in (*held_out, *(f"hippocampus_{number}" for number in range(400, 608)))):
        write_case(tmp_path / inside / "imagesTr" / name, tmp_path / inside / "labelsTr" / name, 0, 1, 2)
    (tmp_path / inside / "imagesTr" / "._hippocampus_400.nii.gz").write_bytes(b"a Mac's")  # as in the real archive
    archive = tmp_path / f"{inside}.tar"
    with tarfile.open(archive, "w") as file:
        file.add(tmp_path / inside, inside)
    whole = hashlib.md5(archive.read_bytes()).hexdigest()
    for address, md5, why in ((archive.name, "0" * 32, "hash check"), ("absent.tar", whole, "404")):
        status, said = make("hippocampus", f"{server}/{address}", md5, inside)
        assert status
        assert why in said
        assert "Traceback" not in said
        assert not (tmp_path / "my data" / "hippocampus").exists()
    status, said = make("hippocampus", f"{server}/{archive.name}", whole, inside)
    assert status == 0, said
    assert "val: 52 pairs" in said  # the study's split
    assert os.listdir(tmp_path / "my data") == ["hippocampus"]
