"""Look inside a pickled torch model without running anything of it."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import _utils


class Passive:
    """Stands for an object of any class: keeps its constructor arguments and its state, inert."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **options: Any) -> "Passive":
        """Keep what the constructor would have been given."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, options
        return made

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *arguments: Any, **options: Any) -> "Passive":
        """Called in place of a pickled function: nothing happens."""
        return type(self)(*arguments, **options)

    def append(self, _: Any) -> None:
        """Ignore list contents of unknown classes."""

    def extend(self, _: Any) -> None:
        """Ignore list contents of unknown classes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore dict contents of unknown classes."""

    def __hash__(self) -> int:
        return id(self)


_TENSOR_PARTS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("collections", "OrderedDict"): OrderedDict,
}
_TENSOR_PARTS |= {
    (module, kind.__name__): kind
    for module in ("builtins", "__builtin__")
    for kind in (set, list, dict, tuple, int, float, slice)
}


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers; every other class or function becomes passive."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name: a known harmless one, or an inert stand-in."""
        if (module, name) in _TENSOR_PARTS:
            return _TENSOR_PARTS[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name.rpartition(".")[2], (Passive,), {"__module__": module})


_PICKLE = SimpleNamespace(
    Unpickler=_Unpickler, load=None, loads=None, Pickler=None, __name__="passive_pickle"
)


_BROKEN = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ValueError,
    TypeError,
    LookupError,
    struct.error,
)
"""What damaged files raise as they are read."""


def load_passive(path: str | Path) -> Any:
    """Return the object graph of a torch file with inert stand-ins for all classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    _refuse_script(path)
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except (OSError, *_BROKEN) as error:
        raise ValueError(
            f"{path} cannot be read as a torch model ({type(error).__name__}: {error}): "
            "it is truncated or of another format"
        ) from error


def load_passive_package(path: str | Path, member: str) -> Any:
    """Return an object pickled in a torch package, with inert stand-ins for all classes.

    The program text in the package is not read.

    Args:
        path: Archive of ``torch.package``.
        member: Name of the pickle in it, such as ``model/eager_model.pkl``.

    Raises:
        ValueError: If the file is damaged, or has no such member.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _PackageUnpickler(archive, package_member(archive, member)).load()
    except (
        OSError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        LookupError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as a torch package ({type(error).__name__}: {error}): it is "
            "truncated or of another format"
        ) from error


def package_member(archive: zipfile.ZipFile, member: str) -> str:
    """Return the full name of a member: a package has one folder, named as it likes.

    Raises:
        LookupError: If there is none.
    """
    names = [name for name in archive.namelist() if name.partition("/")[2] == member]
    if not names:
        raise LookupError(f"it holds no {member}")
    return names[0]


class _PackageUnpickler(_Unpickler):
    """Finds the storages of tensors in the archive."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(io.BytesIO(archive.read(name)))
        self.archive, self.folder = archive, name.partition("/")[0]

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage; what a package would run to make an object becomes passive."""
        if pid[0] != "storage":
            return Passive()
        data = self.archive.read(f"{self.folder}/.data/{pid[2]}.storage")
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
        return SimpleNamespace(
            dtype=_STORED[pid[1].__name__], _untyped_storage=flat.untyped_storage()
        )


_STORED = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def _refuse_script(path: Path) -> None:
    """TorchScript archives run code as they load."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path} is a TorchScript program, not a MACE model file: give the .model that "
            "mace_run_train writes, not a compiled or LAMMPS export"
        )


def tensors(module: Passive, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return parameters and buffers of a passive ``nn.Module``, as its ``state_dict`` would."""
    found: dict[str, torch.Tensor] = {}
    for group in ("_parameters", "_buffers"):
        for name, value in (module.state.get(group) or {}).items():
            if isinstance(value, torch.Tensor):
                found[prefix + name] = value.detach()
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, Passive) and isinstance(child.state, dict):
            found |= tensors(child, f"{prefix}{name}.")
    return found
