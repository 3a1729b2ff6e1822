"""Where the content folders are: in the checkout first, then in the installed wheel."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def content(folder: str) -> Path:
    """Return the folder ``configs``, ``datasets`` or ``benchmarks``.

    Raises:
        FileNotFoundError: If neither the checkout nor the installed package holds it.
    """
    for root in (_PACKAGE.parent, _PACKAGE / "_content"):
        if (root / folder).is_dir() and (root == _PACKAGE / "_content" or _is_checkout(root)):
            return root / folder
    raise FileNotFoundError(
        f"the folder {folder!r} of mlip-suite is missing: reinstall it, or run from a checkout"
    )


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be one.

    Raises:
        ValueError: If the path, or a parent of it, is a file, or may not be written to.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"output is {folder}, but {existing} is a file: give a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"output is {folder}, but {existing} cannot be written to")


def _is_checkout(root: Path) -> bool:
    return (root / "pyproject.toml").is_file() and (root / "configs" / "train.yaml").is_file()
