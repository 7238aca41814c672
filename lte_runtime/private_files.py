"""Files that only their owner may read: making them so, and tightening what an earlier version left open."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lte_runtime.errors import Refused

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
# The group may pass through to the client socket, whose name it must know; it cannot list.
STATE_MODE = 0o710
UMASK = 0o077
_SPACE = "free some space (`df -h` shows it), then start again"
_RIGHTS = "make it writable for the daemon's user, or set state_dir"
_CURES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "mount it for writing, or set state_dir to a directory on another disk",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}


def make_state_directory(directory: Path) -> None:
    """Make a directory, and its missing parents, that the group may pass through.

    Raises `Refused` where it cannot be made.
    """
    if directory.is_dir():
        return
    if directory.parent != directory:
        make_state_directory(directory.parent)
    try:
        directory.mkdir(exist_ok=True)
        directory.chmod(STATE_MODE)
    except OSError as error:
        raise unwritable(directory, error) from error


def create(path: Path) -> None:
    """Make an empty file for its owner alone, unless there is a file; raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def make_private(directory: Path) -> None:
    """Make a directory and its missing parents for their owner alone; raises OSError."""
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)


def follow(root: Path, copy: Path) -> None:
    """Give `copy` and the files in it the rights of the directory `root` that will hold them."""
    rights = stat.S_IMODE(root.stat().st_mode) & 0o777
    copy.chmod(rights)
    for path in copy.iterdir():
        path.chmod(rights & 0o666)


def tighten(directory: Path, *, scratch: str = "") -> int:
    """Take the rights of others from everything below a state directory; returns how many had some.

    Raises `Refused` for what another user owns or everybody may write: it may have been changed by others.
    In the subdirectory `scratch`, whose files are checked when they are read, such files are accepted.
    """
    directory = directory.resolve()
    changed = _tighten(directory, STATE_MODE, trusted=True)
    # A directory comes before its content: one of another user is refused before it is entered.
    for place, directories, files in os.walk(directory):
        for name in directories + files:
            path = Path(place, name)
            trusted = not scratch or path.relative_to(directory).parts[0] != scratch
            changed += _tighten(path, DIRECTORY_MODE, trusted=trusted)
    return changed


def _tighten(path: Path, allowed: int, *, trusted: bool) -> int:
    """1 when something was taken from the mode. Links are not followed, sockets keep their group."""
    try:
        about = path.lstat()
    except OSError:  # gone, or in a directory of another user, which `scratch` may hold
        return 0
    if not (stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode)):
        return 0
    mode = stat.S_IMODE(about.st_mode)
    if trusted:
        _check(path, about.st_uid, mode)
    extra = mode & 0o777 & ~(allowed if stat.S_ISDIR(about.st_mode) else FILE_MODE)
    if not extra or about.st_uid != os.geteuid():
        return 0
    path.chmod(mode & ~extra)
    return 1


def _check(path: Path, owner: int, mode: int) -> None:
    me = os.geteuid()
    if owner != me:
        raise Refused(
            f"{path} belongs to user {owner}, but the daemon runs as user {me}: "
            f"run it as user {owner}, or, if you trust the files, `chown -R {me} {path}`"
        )
    if mode & stat.S_IWOTH:
        raise Refused(
            f"{path} has mode {mode:04o}: every user can write to it. "
            f"If you trust its content: `chmod o-w {path}`"
        )


def unwritable(path: Path, error: OSError) -> Refused:
    """Why a store cannot be opened on `path`, and what to do."""
    cure = _CURES.get(error.errno or 0, "check the disk, or set state_dir to another one")
    return Refused(
        f"cannot write to {path}: {error.strerror}. The daemon must be able to write there: {cure}"
    )
