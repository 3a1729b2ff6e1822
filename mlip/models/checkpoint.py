"""Checkpoints: weights, config, references and versions in one safetensors file; never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlip.keys import FIELDS
from mlip.models.build import build
from mlip.models.potential import Potential

FORMAT = "mlip-potential"
FORMAT_VERSION = 1
_VERSIONED = (
    "mlip-suite", "torch", "e3nn", "mace-torch", "chgnet", "sevenn", "nequip", "nequip-allegro"
)  # fmt: skip
_WITHOUT_E3NN = (".Chgnet",)
"""Backbones whose weights mean the same under every e3nn."""


def save(
    path: str | Path,
    potential: Potential,
    config: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint; the file appears whole or not at all.

    Auxiliary heads, such as that of direct forces, are left out: what is read back has forces that
    are minus the gradient of its energy, and no others.

    Args:
        path: Target, conventionally ``*.safetensors``.
        potential: The potential.
        config: The resolved ``model`` config that :func:`mlip.models.build.build` takes.
        card: What a user wants to know: data sets, functional, errors, step.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    potential = potential.without_auxiliary_heads()
    config = {
        **config,
        "heads": {k: head for k, head in config["heads"].items() if k in potential.heads},
    }
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config,
        "energy_references": dict(
            zip(potential.elements, potential.energy_references.tolist(), strict=True)
        ),
        "fields": {
            name: {"level": field.level, "shape": field.shape, "unit": field.unit}
            for name, field in FIELDS.items()
        },
        "versions": _versions(),
        "card": dict(card or {}),
    }
    weights = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in potential.state_dict().items()
    }
    partial = path.with_name(f".{path.name}.partial")
    save_file(weights, partial, metadata={"mlip": json.dumps(header)})
    partial.chmod(0o644)  # safetensors writes for the owner only
    partial.replace(path)
    return path


def load(path: str | Path, device: str | torch.device = "cpu") -> Potential:
    """Read a potential from a checkpoint, ready to predict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, of another format, from a newer version of mlip, or
            was written under an e3nn whose conventions differ from the installed one.
    """
    header = read_header(path)
    if not header["config"]["backbone"].get("_target_", "").endswith(_WITHOUT_E3NN):
        _check_e3nn(path, header["versions"])
    try:
        potential = build(header["config"])
    except TypeError as error:
        raise ValueError(f"{path} names an option this version does not have: {error}") from error
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        potential.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its own config: {error}") from error
    return potential.to(device).eval()


def read_header(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself: config, references, versions, card.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of mlip, or is truncated.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the checkpoint in it, such as best.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}): it is truncated or of another "
            "format; mlip reads the best.safetensors of a run folder"
        ) from error
    if "mlip" not in metadata:
        raise ValueError(f"{path} holds tensors but no mlip potential: export it with mlip train")
    header = json.loads(metadata["mlip"])
    if header.get("format") != FORMAT or header.get("format_version", 0) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {header.get('format')!r} version {header.get('format_version')}; "
            f"this mlip reads {FORMAT!r} up to version {FORMAT_VERSION}: update mlip-suite"
        )
    return header


def fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a checkpoint file, which identifies it in every record."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_e3nn(path: str | Path, written: Mapping[str, str]) -> None:
    """The phases of Clebsch-Gordan coefficients changed between e3nn 0.4 and 0.5."""
    here = _versions().get("e3nn")
    there = written.get("e3nn")
    if here and there and (_line(here) != _line(there)):
        raise ValueError(
            f"{path} was written under e3nn {there}, but e3nn {here} is installed and its "
            "coefficients differ: load it in the environment of its extra"
        )


def _line(version_text: str) -> bool:
    return tuple(int(part) for part in version_text.split(".")[:2]) < (0, 5)
