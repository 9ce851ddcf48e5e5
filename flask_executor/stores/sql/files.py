"""Where an SQLite file lies, and what kinds of files cannot be a store."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL

from ..errors import StoreRefused

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"}
    | {"lustre", "gpfs", "ocfs2", "gfs2", "davfs", "fuse.sshfs", "fuse.glusterfs"}
    | {"fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}
)
_MOUNTS = "/proc/self/mounts"
"""Where the kernel lists what is mounted."""


def resolve(url: URL, folder: str | os.PathLike[str] | None) -> URL:
    """Return the URL with an absolute path; make the folder it is in.

    :param folder: where a relative path begins: the instance folder of the app.
    :raises StoreRefused: for a database in memory, or on a network file system.
    """
    shown, name = str(url), url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        raise StoreRefused(
            shown,
            "other processes could not see it; name a file, as sqlite:///tasks.db",
        )
    path = Path(folder or os.getcwd(), name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if (kind := file_system(path)) in _NETWORK:
        raise StoreRefused(
            shown,
            f"{path} lies on a network file system ({kind}), where SQLite's locks do"
            " not hold and its WAL does not work; use a local disk, or PostgreSQL",
        )
    return url.set(database=str(path))


def file_system(path: Path) -> str | None:
    """Return the kind of the file system that a path is on; None if it is not known."""
    try:
        lines = Path(_MOUNTS).read_text(errors="replace").splitlines()
    except OSError:  # there is none, except on Linux
        return None
    real, found = path.resolve(), (-1, "")
    for line in lines:
        point, kind = line.split()[1:3]
        place = Path(point.encode().decode("unicode_escape"))
        if real == place or place in real.parents:
            # The last of several at one place is on top.
            found = max(found, (len(place.parts), kind), key=_depth)
    return found[1] or None


def _depth(found: tuple[int, str]) -> int:
    return found[0]


def shown(url: URL) -> str:
    """Return the URL as messages show it: without its password."""
    return url.render_as_string(hide_password=True)
