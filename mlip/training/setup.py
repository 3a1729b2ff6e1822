"""Everything before the first step: data checked, references fitted, potential built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mlip.data.check_structures import check_duplicates, check_elements
from mlip.data.checks import check_source, check_splits
from mlip.data.energy_references import (
    EnergyReferences,
    fit_energy_references,
    given_energy_references,
    isolated_energy_references,
)
from mlip.data.findings import Finding, by_severity, require
from mlip.data.frame import Frame
from mlip.data.loader import average_neighbors, batches, force_scale, to_graphs
from mlip.data.mixture import Mixture
from mlip.data.readers import read
from mlip.data.sources import Splits, without_isolated
from mlip.data.store.view import sample
from mlip.graph import AtomGraph
from mlip.models.build import PRECISIONS, build, head_classes, resolve
from mlip.models.loading import load_with_config
from mlip.models.potential import BORN, DERIVATIVES, Potential
from mlip.training.accelerate import building
from mlip.training.charge_labels import require_charges
from mlip.training.loss import LABEL_OF, Loss
from mlip.training.metrics import REPORTED
from mlip.training.stages import Stages
from mlip.training.start import extended

CHECKED = 2000
"""Frames of each split of a store that are looked at before a training."""


@dataclass
class Setup:
    """What a run starts from.

    Args:
        splits: The frames.
        findings: What the checks of the frames said.
        references: Energy of each element.
        config: Resolved ``model`` config.
        potential: Initialised potential.
        loss: The loss.
        train: Graphs to train on.
        val: Graphs to validate with.
    """

    splits: Splits
    findings: list[Finding]
    references: EnergyReferences
    config: dict[str, Any]
    potential: Potential
    loss: Loss
    train: Sequence[AtomGraph]
    val: Sequence[AtomGraph]


def prepare(config: DictConfig) -> Setup:
    """Read and check the data, fit references and build the potential.

    Raises:
        ValueError: For anything that would spoil the training, before it starts.
    """
    stages = Stages.of(instantiate(config.stages, _convert_="all"), config.trainer.max_epochs)
    loss: Loss = instantiate(config.loss).in_stages(stages)
    splits: Splits = instantiate(config.data.source)
    isolated: list[Frame] = []
    if config.energy_references == "isolated":
        splits, isolated = without_isolated(splits)
    findings = _check(splits, loss)
    if absent := _absent(loss, splits.train):
        loss = loss.without(absent)
        findings.append(
            Finding("warning", f"no training frame has {', '.join(absent)}: the loss does without")
        )
    torch.manual_seed(config.seed)
    model: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    if config.start is None:
        heads = head_classes(model["heads"]).values()
        inputs = [name for head in heads for name in head.inputs]
        gives = [name for head in heads for name in head.gives]
        loss = loss.fitting(("energy", *DERIVATIVES, BORN, *gives))
        labels = _labels(loss, inputs, gives)
        train = to_graphs(splits.train, float(model["backbone"]["r_max"]), labels)
        model = resolve(model, splits.elements, average_neighbors(train))
        with building(config.accelerate):
            potential = build(model)
        potential.set_scale(force_scale(splits.train))
        references = _references(config, splits, isolated)
    else:
        with building(config.accelerate):
            potential, model = extended(
                *load_with_config(config.start, head=config.start_head), model["heads"]
            )
        loss = loss.fitting(potential.outputs)
        labels = _labels(loss, potential.inputs, potential.outputs)
        precision = config.model.precision
        potential.to_precision(PRECISIONS[precision])
        model = {**model, "precision": precision}
        _require_known(splits, potential)
        train = to_graphs(splits.train, potential.r_max, labels)
        references = _references(config, splits, isolated, potential)
    _require_outputs(loss, potential)
    for frames in (splits.train, splits.val):
        require_charges(sample(frames, CHECKED), potential, "charges" in loss.names)
    potential.set_energy_references(references.values)
    val = to_graphs(splits.val, potential.r_max, labels)
    return Setup(splits, findings, references, model, potential.train(), loss, train, val)


def _check(splits: Splits, loss: Loss) -> list[Finding]:
    if not splits.train or not splits.val:
        raise ValueError(
            f"{len(splits.train)} training and {len(splits.val)} validation frames: both are "
            "needed; raise data.source.val_fraction, or give more frames"
        )
    required = [name for name in ("energy", "forces") if name in loss.labels]
    groups = {"train": splits.train, "val": splits.val, "test": splits.test}
    looked = {name: list(sample(frames, CHECKED)) for name, frames in groups.items() if frames}
    if isinstance(splits.train, Mixture):
        findings = by_severity([*_of_sources(groups, required), *check_duplicates(looked)])
    else:
        findings = check_splits(looked, required)
    require(findings)
    if any(len(looked[name]) < len(groups[name]) for name in looked):
        findings.append(
            Finding("note", f"{CHECKED} frames of each split were looked at, spread evenly; "
                    "mlip data doctor STORE looks at more")
        )  # fmt: skip
    return findings


def _of_sources(groups: Mapping[str, Sequence[Frame]], required: Sequence[str]) -> list[Finding]:
    """Check each source of a mixture by itself: functionals and energies differ between them."""
    parts = [
        part for frames in groups.values() if isinstance(frames, Mixture) for part in frames.parts
    ]
    return [
        Finding(found.severity, f"{part.name}: {found.message}")
        for part in parts
        if part.frames
        for found in check_source(list(sample(part.frames, CHECKED)), required)
    ]


def _absent(loss: Loss, frames: Sequence[Frame]) -> list[str]:
    """Return the properties of a loss that no frame has a label of."""
    looked = sample(frames, CHECKED)
    return [
        name
        for name in loss.names
        if not any(LABEL_OF.get(name, name) in frame.labels for frame in looked)
    ]


def _labels(loss: Loss, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """Return what a graph carries: labels to learn and to report, and what heads are told."""
    known = ("energy", "forces", "stress", *outputs)
    reported = [LABEL_OF.get(name, name) for name in REPORTED if name in known]
    return tuple(dict.fromkeys([*loss.labels, *reported, *inputs]))


def _require_known(splits: Splits, potential: Potential) -> None:
    """Refuse elements that the potential to start from was not trained on."""
    if set(splits.elements) - set(potential.elements):
        require(check_elements([*splits.train, *splits.val], potential.elements))


def _require_outputs(loss: Loss, potential: Potential) -> None:
    """Refuse to learn what no head gives."""
    for name in loss.names:
        if name not in potential.outputs:
            raise ValueError(
                f"the loss has {name}, but the model gives {', '.join(potential.outputs)}: add its "
                f"head, +head@model.heads.{name}={name}, or leave it out of the loss"
            )


def _references(
    config: DictConfig, splits: Splits, isolated: Sequence[Frame], start: Potential | None = None
) -> EnergyReferences:
    """References given, fitted, of isolated atoms, or shifted by what a potential misses."""
    elements = start.elements if start else splits.elements
    given = config.energy_references
    if OmegaConf.is_dict(given):
        values: dict[str, Any] = OmegaConf.to_container(given)  # type: ignore[assignment]
        if "isolated" in values:
            return isolated_energy_references(
                read(values["isolated"], values.get("units")), splits.elements
            )
        return given_energy_references(values, elements)
    if given == "isolated":
        return isolated_energy_references(isolated, splits.elements)
    if start is None or given == "fit":
        return _trained(fit_energy_references(splits.train), splits)
    return _shifted(start, splits.train)


def _trained(references: EnergyReferences, splits: Splits) -> EnergyReferences:
    """Refuse elements that are only in frames to validate or test with."""
    if missing := [symbol for symbol in splits.elements if symbol not in references.values]:
        raise ValueError(
            f"no training frame has {', '.join(missing)}, but validation or test frames have: "
            "leave these out (mlip data select … elements=…), or hold out other frames (seed=…)"
        )
    return references


def _shifted(start: Potential, frames: Sequence[Frame]) -> EnergyReferences:
    """Shift the references of a potential by the least-squares fit of its own energy error."""
    frames = sample(frames, CHECKED)
    graphs = to_graphs(frames, start.r_max, start.inputs)
    energies = [
        float(energy)
        for batch in batches(graphs, {"batch_size": 8, "workers": 0})
        for energy in start(batch, outputs=())["energy"]
    ]
    errors = [
        replace(frame, labels={"energy": frame.labels["energy"] - energy})
        for frame, energy in zip(frames, energies, strict=True)
        if "energy" in frame.labels
    ]
    shift = fit_energy_references(errors)
    old = dict(zip(start.elements, start.energy_references.tolist(), strict=True))
    return replace(shift, values={e: old[e] + shift.values.get(e, 0.0) for e in old})
