"""`make camvid`, from a repository that stands in for the source."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from PIL import Image

CHECK = """#!/bin/sh
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


@pytest.mark.slow
def test_the_named_commits_camvid_is_fetched_whole_or_not_at_all(tmp_path):
    source, data, python = tmp_path / "source", tmp_path / "my data", tmp_path / "python"
    python.write_text(CHECK.format(python=sys.executable))
    python.chmod(0o755)
    for number, (split, name) in enumerate([("test", "t1"), ("test", "t2"), ("train", "a"), ("val", "v")]):
        for place, value in ((split, 0), (f"{split}annot", number)):
            (source / "CamVid" / place).mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), value).save(source / "CamVid" / place / f"{name}.png")
    (source / "README").write_text("not fetched")
    git(source, "init", "--quiet")
    git(source, "config", "uploadpack.allowFilter", "true")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "data")
    good = git(source, "rev-parse", "HEAD").strip()
    (source / "CamVid" / "trainannot" / "a.png").write_bytes(b"spoiled")
    git(source, "commit", "--quiet", "-a", "-m", "spoiled")
    bad = git(source, "rev-parse", "HEAD").strip()

    def make(url, commit):
        variables = {"CAMVID": url, "CAMVID_COMMIT": commit, "GLAM_DATA": data, "PYTHON": python}
        command = ["make", "camvid", *(f"{name}={value}" for name, value in variables.items())]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    for url, commit, said in (
        ("file:///nowhere/at/all", good, "nowhere"),
        (source.as_uri(), bad, "a.png: cannot be read"),
    ):
        run = make(url, commit)
        assert run.returncode
        assert said in run.stdout + run.stderr
        assert not (data / "camvid").exists()
    run = make(source.as_uri(), good)
    assert run.returncode == 0, run.stderr
    assert os.listdir(data) == ["camvid"]
    assert sorted(os.listdir(data / "camvid")) == ["test", "testannot", "train", "trainannot", "val", "valannot"]
