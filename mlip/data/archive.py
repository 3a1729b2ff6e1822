"""Tar and zip archives, unpacked so that no member leaves its folder and no half folder is left."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack an archive into a new folder; it appears when everything in it is there.

    A folder that exists already is taken as unpacked.

    Args:
        archive: Tar (plain, gz, bz2, xz) or zip.
        folder: Folder to make.

    Returns:
        The files in it.

    Raises:
        ValueError: If a member is a link or a device, has an absolute path or leaves the folder,
            or if the archive is damaged. Nothing is left behind then.
    """
    if not folder.is_dir():
        for old in folder.parent.glob(f".{folder.name}.*.unpacking"):
            if not _alive(old.suffixes[-2].removeprefix(".")):  # a run that was killed
                shutil.rmtree(old, ignore_errors=True)
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.unpacking")
        draft.mkdir(parents=True)
        try:
            if archive.name.lower().endswith(".zip"):
                _unpack_zip(archive, draft)
            else:
                _unpack_tar(archive, draft)
            os.sync()  # a folder that is there counts as whole
            draft.rename(folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(
                f"{archive} cannot be unpacked ({error}): if it is damaged, remove it and pull "
                "again; if the disk is full, make room"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise ValueError(
                    f"{archive}: the member {member.name!r} is a link or a device, which data "
                    "needs not: do not use this archive"
                )
            # The filter came with Python 3.11.4; names and kinds of members are checked above.
            safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extract(member, folder, **safely)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check_name(archive, member.filename)
            # The upper half of the attributes is the Unix mode; 0o120000 is a symbolic link.
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise ValueError(
                    f"{archive}: the member {member.filename!r} is a link, which data needs not: "
                    "do not use this archive"
                )
            file.extract(member, folder)


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise ValueError(
            f"{archive}: the member {name!r} would be written outside its folder: do not use this "
            "archive"
        )
