"""The evaluate verb: one potential against the labels of one file or data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from mlip import config as configs
from mlip import runtime
from mlip.calculators.build import build_calculator
from mlip.data.card import load_frames
from mlip.data.check_structures import check_elements
from mlip.data.checks import check_splits
from mlip.data.findings import require
from mlip.data.frame import Frame
from mlip.data.inputs import all_frames, is_data_set
from mlip.evaluation.evaluate import evaluate
from mlip.evaluation.terminal import print_errors
from mlip.paths import check_folder


def cli_run(overrides: Sequence[str]) -> Path:
    """Evaluate as ``configs/evaluate.yaml`` and the overrides say; return the report.

    Raises:
        ValueError: For a bad option, unreadable data, frames without energies (unless the potential
            gives charges, which need no label), or elements that the potential lacks, all before
            the first prediction; and after the report, if the potential failed on every frame.
    """
    config = configs.compose("evaluate", overrides)
    _check_choice(config)
    runtime.check_device(config.device)
    runtime.set_threads(config.threads)
    check_folder(Path(config.output))
    frames, origin = _frames(config)
    calculator, label, card = _calculator(config)
    bare = "charges" in getattr(calculator, "implemented_properties", ())
    require(check_splits({"": frames}, required=() if bare else ("energy",)))
    known = getattr(calculator, "supported_elements", None) or card.get("elements")
    if known:
        require(check_elements(frames, sorted(known)))
    evaluation = evaluate(calculator, frames, label=label)
    potential = {"potential": label, "functional": card.get("functional")}
    provenance = {**potential, **evaluation.provenance, **origin}
    evaluation = replace(evaluation, provenance=provenance)
    page = evaluation.write(config.output)
    if len(evaluation.failures) == len(frames):
        raise ValueError(
            f"{label} failed on each of the {len(frames)} frames, first with "
            f"{evaluation.failures[0]}; {page} lists them"
        )
    print_errors(evaluation)
    told = [f"report: {page}"]
    if (charges := page.with_name("charges.csv")).is_file():
        told.append(f"charges: {charges}")
    Console(highlight=False).print("\n".join(told))
    return page


def _check_choice(config: DictConfig) -> None:
    given = [name for name in ("checkpoint", "calculator") if config.get(name) is not None]
    if len(given) != 1:
        wrong = "both were given" if given else "neither was given"
        raise ValueError(f"say which potential, by checkpoint=FILE or calculator=NAME: {wrong}")
    if OmegaConf.is_missing(config, "frames"):
        raise ValueError(
            "frames is missing: give frames=FILE, or the name of a data set (mlip list)"
        )


def _frames(config: DictConfig) -> tuple[list[Frame], dict[str, Any]]:
    if is_data_set(config.frames):
        frames = load_frames(config.frames, config.split)
        return frames, {"data": f"{config.frames}, split {config.split}"}
    path = Path(config.frames)
    given: Any = OmegaConf.to_container(config)
    frames = list(all_frames(path, given["units"], given["options"]))
    if path.is_dir():
        return frames, {"data": path.name}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return frames, {"data": path.name, "data SHA-256": digest[:12]}


def _calculator(config: DictConfig) -> tuple[BaseCalculator, str, dict[str, Any]]:
    if config.checkpoint is not None:
        from mlip.calculators.checkpoint import MlipCalculator

        path = Path(config.checkpoint)
        label = "/".join(part for part in (path.resolve().parent.name, path.stem) if part)
        return MlipCalculator(path, config.device), label, {}
    content: dict[str, Any] = OmegaConf.to_container(config.calculator, resolve=True)  # type: ignore[assignment]
    return build_calculator(content["build"]), content["card"]["label"], content["card"]
