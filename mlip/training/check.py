"""A config checked before anything loads: types first, then what cannot go together."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from ase.data import atomic_numbers
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mlip import config as configs
from mlip.data.batching import Budget
from mlip.errors import suggest
from mlip.evaluation.metrics import QUANTITIES
from mlip.keys import LABELS
from mlip.models.build import build, head_classes, resolve
from mlip.models.charge_head import ChargeHead
from mlip.models.head import Head
from mlip.models.potential import BORN, DERIVATIVES
from mlip.training import accelerate, devices
from mlip.training.loss import LABEL_OF, Loss
from mlip.training.metrics import REPORTED
from mlip.training.schema import near, type_errors
from mlip.training.stages import Stages


def check(config: DictConfig) -> None:
    """Refuse a config that could not be trained, before any data are read.

    Raises:
        ValueError: Naming every field with its value and what to give instead.
    """
    configs.require_complete(config)
    content: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _raise(_at_their_source(type_errors(content), config))
    problems = [*_trainer(content), *_strategy(content), *_start(content), *_monitor(content)]
    problems += [*_model(content), *_data(content)]
    _raise(problems)
    _accelerate(content, devices.accelerator(config))
    _optimizer(config)
    loss = _loss(config)
    _raise([*_weights(loss, content), *_heads(loss, content)])
    _vectors(content)


def _at_their_source(problems: list[str], config: DictConfig) -> list[str]:
    """Name the field that a user gave, not one that takes its value from there, and once."""
    found: dict[str, str] = {}
    for problem in problems:
        field, _, said = problem.partition(" is ")
        parent, _, key = field.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        raw = None
        if isinstance(node, DictConfig) and key in node:
            raw = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
        if isinstance(raw, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", raw)):
            found.setdefault(match[1], f"{match[1]} is {said}")
        else:
            found[field] = problem
    return list(found.values())


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(problems))


_STRATEGIES = ("auto", "ddp")
_NO_FSDP = (
    "trainer.strategy is fsdp, which cannot train forces: they need a derivative of a derivative, "
    "for which the weights of a layer are gone once FSDP has sharded it; and the memory of a "
    "training is that of its edges, not of its weights: take trainer.strategy=ddp and a smaller "
    "data.batch, with trainer.accumulate_grad_batches to keep the size of a step"
)


def _strategy(content: Mapping[str, Any]) -> Iterator[str]:
    strategy = content["trainer"].get("strategy", "auto")
    if strategy == "fsdp":
        yield _NO_FSDP
    elif strategy not in _STRATEGIES:
        known = " or ".join(_STRATEGIES)
        yield f"trainer.strategy is {strategy!r}: give {known}{near(str(strategy), _STRATEGIES)}"


def _accelerate(content: Mapping[str, Any], device: str) -> None:
    backbone = content["model"]["backbone"]["_target_"]
    told = accelerate.refusal(content["accelerate"], backbone, device)
    _raise([told] if told else [])
    charged = [name for name, head in _head_classes(content) if issubclass(head, ChargeHead)]
    if content["accelerate"] == "compile" and charged:
        raise ValueError(
            f"accelerate is compile, but the Coulomb sums of model.heads.{charged[0]} are planned "
            "batch by batch, which no compiled step can hold: give accelerate=null"
        )


def _trainer(content: Mapping[str, Any]) -> Iterator[str]:
    trainer, patience = content["trainer"], content["patience"]
    epochs = trainer.get("max_epochs")
    if epochs is None or epochs < 1:
        yield f"trainer.max_epochs is {epochs}: give a whole number from 1"
        return
    if patience is not None and patience >= epochs:
        yield (
            f"patience is {patience}, but trainer.max_epochs is {epochs}: it would never stop "
            "anything; give fewer epochs of patience, or null"
        )
    if trainer.get("limit_val_batches") == 0:
        yield (
            "trainer.limit_val_batches is 0: without validation nothing chooses the best "
            "checkpoint; leave it out"
        )
    every = trainer.get("check_val_every_n_epoch", 1)
    if every is None or every > epochs:
        yield (
            f"trainer.check_val_every_n_epoch is {every}, but trainer.max_epochs is {epochs}: "
            "nothing would choose the best checkpoint; give a smaller number"
        )


def _start(content: Mapping[str, Any]) -> Iterator[str]:
    if content["start"] is None:
        if content["start_head"] is not None:
            yield (
                f"start_head is {content['start_head']!r}, but start is null: name the MACE model "
                "by start=FILE"
            )
        if content["energy_references"] == "foundation":
            yield "energy_references is foundation: name the potential by start=FILE"
    elif any(head.auxiliary for _, head in _head_classes(content)):
        yield (
            f"start is {content['start']!r}, whose model has no head of direct forces: leave out "
            "stages=direct_forces, or start"
        )


def monitors() -> list[str]:
    """Return the validation errors that may choose the best checkpoint."""
    errors = [
        f"val/{quantity}_{kind}_{QUANTITIES[quantity][0]}"
        for name, quantity in REPORTED.items()
        if name not in LABEL_OF  # no checkpoint gives those
        for kind in ("mae", "rmse")
    ]
    return ["val/loss", *errors]


def _monitor(content: Mapping[str, Any]) -> Iterator[str]:
    if content["monitor"] not in monitors():
        known = suggest(content["monitor"], monitors())
        yield f"monitor is {content['monitor']!r}, which no validation computes{known}"


def _model(content: Mapping[str, Any]) -> Iterator[str]:
    model = content["model"]
    for part in ("backbone", "heads"):
        if not model.get(part):
            yield f"model.{part} is empty: a potential needs it"
    for symbol in model.get("elements") or ():
        if symbol not in atomic_numbers or symbol == "X":
            known = near(symbol, atomic_numbers)
            yield f"model.elements holds {symbol!r}, which is no element{known}"


def _data(content: Mapping[str, Any]) -> Iterator[str]:
    try:
        if content["data"].get("batch"):
            Budget.from_config(content["data"]["batch"])
    except ValueError as error:
        yield str(error)


def _optimizer(config: DictConfig) -> None:
    """Let optimiser and schedule refuse their values, on one weight of no importance."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = _made("optimizer", lambda: instantiate(config.optimizer)([weight]))
    if config.schedule:
        _made("schedule", lambda: instantiate(config.schedule)(optimizer))


def _loss(config: DictConfig) -> Loss:
    epochs = config.trainer.max_epochs
    stages = _made("stages", lambda: instantiate(config.stages, _convert_="all"))
    loss: Loss = _made("loss", lambda: instantiate(config.loss))
    return loss.in_stages(Stages.of(stages, epochs))


def _made(field: str, make: Callable[[], Any]) -> Any:
    """Return what a node of the config makes; its refusal is told with the field."""
    try:
        return make()
    except InstantiationException as error:
        lines = str(error).splitlines()
        place = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key")]
        raise ValueError(f"{place[0] if place else field}: {error.__cause__ or error}") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{field}: {error}") from error


def _weights(loss: Loss, content: Mapping[str, Any]) -> Iterator[str]:
    epochs = content["trainer"]["max_epochs"]
    known = [name for name in LABELS if name not in ("total_charge", "spin")] + list(LABEL_OF)
    for name, term in loss.terms.items():
        if name not in known:
            yield f"loss.properties.{name} is no property{suggest(name, known)}"
        last = max(term.weight.points)  # type: ignore[union-attr]
        if last >= epochs:
            yield (
                f"loss.properties.{name}.weight changes at epoch {last:g}, but trainer.max_epochs "
                f"is {epochs}: give an earlier epoch, or more epochs"
            )


def _heads(loss: Loss, content: Mapping[str, Any]) -> Iterator[str]:
    """Every property of the loss has its head, and every head what teaches it."""
    if content["start"] is not None:
        return  # the heads are those of the file
    heads = list(_head_classes(content))
    outputs = ["energy", *DERIVATIVES, *(name for _, head in heads for name in head.gives)]
    outputs += [BORN] if "charges" in outputs else []
    for name in loss.fitting(outputs).names:
        if name not in outputs:
            yield (
                f"loss.properties.{name} has a weight, but the model gives {', '.join(outputs)}: "
                f"add its head, +head@model.heads.{name}={name}, or set its weight to 0"
            )
    for name, head in heads:
        if head.own_label and not set(head.gives) & set(loss.names):
            given = ", ".join(head.gives)
            yield (
                f"model.heads.{name} gives {given}, but no loss of {given} would train it: choose "
                f"a loss with it (mlip list loss), or leave the head out"
            )


def _head_classes(content: Mapping[str, Any]) -> Iterator[tuple[str, type[Head]]]:
    yield from head_classes(content["model"].get("heads")).items()


def _vectors(content: Mapping[str, Any]) -> None:
    """Let a head that reads vectors refuse a backbone without, on a model of one element."""
    if any("irreps" in head.needs for _, head in _head_classes(content)):
        _made("model.heads", lambda: build(resolve(content["model"], ["H"], 1.0)))
