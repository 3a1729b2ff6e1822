"""Look inside a pickled torch model without running anything of it."""

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
    except (
        OSError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        struct.error,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as a torch model ({type(error).__name__}: {error}): "
            "it is truncated or of another format"
        ) from error


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
