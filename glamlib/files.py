"""Writing a file atomically."""

import os
import tempfile
from pathlib import Path

from glamlib.errors import InputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Raises InputError if it cannot be written (no space, read-only, a file in a folder's place), and leaves nothing.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".part", ".", path.parent)  # a name as long as allowed has no room
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files for one user only
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:  # also where the process is interrupted
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise InputError unless `write_whole` can write ``path``, and make its folder: before hours of computing."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    probe = path.with_name(f".{path.name}.probe")
    write_whole(probe, b"")
    probe.unlink(missing_ok=True)  # another process may check the same
