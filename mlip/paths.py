"""Where the content folders are: in the checkout first, then in the installed wheel."""

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


def _is_checkout(root: Path) -> bool:
    return (root / "pyproject.toml").is_file() and (root / "configs" / "train.yaml").is_file()
