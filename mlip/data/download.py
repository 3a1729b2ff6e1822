"""Downloads by URL: resumed, checksummed, and patient with a server that stalls or truncates."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from mlip.data.remote import RemoteFile

_CHUNK = 1 << 18
_ATTEMPTS = 5

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes that there will be (None if unknown)."""


class DownloadError(ValueError):
    """A file could not be fetched; the sentence says what to fetch by hand and where to put it."""


def download(
    file: RemoteFile,
    folder: Path,
    *,
    timeout_s: float = 60.0,
    attempts: int = _ATTEMPTS,
    progress: Progress | None = None,
) -> Path:
    """Return the local path of a file that a data card declares by its URL; fetch it if needed.

    What arrived before a kill or a broken connection stays in ``<name>.part`` and is gone on from,
    if the server still has the same file (ETag or date) and takes ranges. The file gets its name
    only after size and checksum were found right.

    Args:
        file: Entry of the card's ``remote``.
        folder: Where it goes.
        timeout_s: Longest silence of the server, s.
        attempts: Tries in a row that bring nothing before it gives up.
        progress: Told how far it is.

    Raises:
        DownloadError: If it cannot be fetched, or is not the file that the card describes.
        ModuleNotFoundError: If the package pooch is not installed, with the command for it.
    """
    pooch = require_package("pooch", "pooch")
    target = folder / file.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(file, folder, timeout_s, attempts, progress)
    try:
        found = pooch.retrieve(
            file.url, file.checksum, fname=target.name, path=target.parent, downloader=transfer
        )
    except ValueError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(
            f"{file.url} is not the file that the card describes ({file.checksum}): {error}. "
            "Nothing was kept; pull again, and correct the card if it is out of date. "
            f"{_by_hand(file, folder)}"
        ) from error
    path = Path(found)
    if not file.has_size(path.stat().st_size):
        raise DownloadError(
            f"{path} has {path.stat().st_size:,} bytes, but the card says about {file.size:,}: "
            "remove it and pull again"
        )
    return path


def require_package(module: str, package: str) -> Any:
    """Import a package of the ``data`` extra.

    Raises:
        ModuleNotFoundError: If it is not installed, with the command for it.
    """
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ModuleNotFoundError(
            f"mlip data pull needs the package {package}: pip install 'mlip-suite[data]'",
            name=module,
        )
    if module == "pooch":
        import_module(module).get_logger().setLevel("WARNING")
    return import_module(module)


class _Transfer:
    """What pooch calls to fetch a URL into a temporary file."""

    def __init__(
        self,
        file: RemoteFile,
        folder: Path,
        timeout_s: float,
        attempts: int,
        progress: Progress | None,
    ) -> None:
        self.file, self.timeout_s, self.attempts = file, timeout_s, attempts
        target = folder / file.filename
        self.part = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")
        self.progress = progress or (lambda done, total: None)
        self.folder = folder

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        lock = FileLock(self.part.with_name(f"{self.part.name}.lock"))
        try:
            with lock.acquire(timeout=0):
                self._fetch_patiently(url)
        except Timeout as error:
            raise DownloadError(
                f"another process fetches {self.part}: wait for it, or end it"
            ) from error
        self.part.replace(output_file)
        self.notes.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)

    def _fetch_patiently(self, url: str) -> None:
        import requests

        left, before = self.attempts, self.size
        while True:
            try:
                if self._fetch(url):
                    break
                reason = "the connection ended early"
            except requests.exceptions.HTTPError as error:
                if error.response is not None and error.response.status_code < 500:
                    raise self._failure(str(error)) from error
                reason = str(error)
            except (requests.exceptions.RequestException, OSError) as error:
                reason = _reason(error, url)
            left = self.attempts if self.size > before else left - 1
            before = self.size
            if left <= 0:
                raise self._failure(reason)
            time.sleep(min(0.2 * 2 ** (self.attempts - left), 10.0))

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch(self, url: str) -> bool:
        """Fetch what is missing; True when the file is whole as far as size tells."""
        import requests

        start, headers = self.size, {"Accept-Encoding": "identity"}
        known = json.loads(self.notes.read_text()) if self.notes.exists() else {}
        if start and known.get("url") == url and known.get("validator"):
            headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
        elif start:
            self.part.unlink()
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout_s) as response:
            if response.status_code == 416:
                return self._past_the_end(response.headers.get("Content-Range", ""))
            response.raise_for_status()
            total = self._begin(url, response)
            with self.part.open("ab") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    self.progress(file.tell(), total)
                file.flush()
                os.fsync(file.fileno())
        return total is None or self.size >= total

    def _begin(self, url: str, response: Any) -> int | None:
        """Return the total size; drop what is there if the server starts over."""
        length = response.headers.get("Content-Length")
        asked = response.headers.get("Content-Range", "")
        if response.status_code == 206 and asked.startswith(f"bytes {self.size}-"):
            total = asked.rpartition("/")[2]
            return int(total) if total.isdigit() else None
        if response.status_code == 206:
            self.part.unlink(missing_ok=True)
            raise OSError(f"the server sent the range {asked!r}, which was not asked for")
        self.part.unlink(missing_ok=True)
        # A weak ETag does not promise equal bytes.
        tag = response.headers.get("ETag", "W/")
        date = response.headers.get("Last-Modified")
        validator = date if tag.startswith("W/") else tag
        self.notes.write_text(json.dumps({"url": url, "validator": validator}))
        total = int(length) if length else None
        if total is not None and not self.file.has_size(total):
            raise self._failure(
                f"the server has {total:,} bytes, but the card says about {self.file.size:,}"
            )
        return total

    def _past_the_end(self, content_range: str) -> bool:
        whole = content_range.rpartition("/")[2]
        if whole == str(self.size):
            return True
        self.part.unlink(missing_ok=True)
        raise OSError("the part on the disk is longer than the file of the server")

    def _failure(self, reason: str) -> DownloadError:
        kept = f" {self.size:,} bytes are kept in {self.part}." if self.size else ""
        target = self.part.with_suffix("")
        if target.exists():  # pooch asks for it again only if it is not what the card describes
            kept += f" What is at {target} is not the file of the card: compare its checksum."
        return DownloadError(
            f"{self.file.filename} cannot be fetched: {reason}.{kept} Pull again to go on. "
            f"{_by_hand(self.file, self.folder)}"
        )


def _reason(error: Exception, url: str) -> str:
    """Return in a few words why nothing came; the client's own text is a page long."""
    import requests

    host = urlsplit(url).netloc
    if isinstance(error, requests.exceptions.Timeout):
        return f"{host} is silent"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    if isinstance(error, requests.exceptions.ConnectionError):
        unknown = "NameResolution" in str(error)
        return f"no connection to {host}{' (its name is not known here)' if unknown else ''}"
    return str(error)[:200]


def _by_hand(file: RemoteFile, folder: Path) -> str:
    host = urlsplit(file.url).netloc
    proof = f" ({file.checksum})" if file.checksum else ""
    return (
        f"Without a network that reaches {host}: fetch {file.url} elsewhere, put it at "
        f"{folder / file.filename}{proof}, and pull again"
    )
