"""Errors of every backbone, and of two other trainers, after the same CPU time on the same frames.

``python tests/speed/accuracy.py [SET …] [only=NAME,…] [seconds=150]`` in each environment adds its
rows to ``benchmarks/accuracy.json`` and draws ``benchmarks/accuracy.png``. Every training runs on
one thread for as many epochs as fit into the time, by what two epochs took beforehand.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import ase.io
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from hydra.utils import instantiate

from mlip import config, paths

SETS = ("lithium", "molybdenum", "mptrj")
PACKAGES = {"mace": "mace", "chgnet": "chgnet", "sevennet": "sevenn", "nequip": "nequip"}
PACKAGES |= {"allegro": "allegro", "native": "torch"}
PEERS = {"mace_run_train": "mace", "nequip-train": "nequip"}
R_MAX, MOST = 5.0, 400
ERRORS = ("energy_per_atom_rmse_meV", "forces_rmse_meV_per_A", "forces_mae_meV_per_A")
ERRORS += ("stress_rmse_GPa",)
BIN = Path(sys.executable).parent


def run(command, log, stdin=None):
    """Return the CPU seconds of a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("w") as file:
        child = subprocess.Popen(
            [str(part) for part in command], stdout=file, stderr=file, env=environment
        )
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{log}:\n{log.read_text()[-3000:]}")
    return used.ru_utime + used.ru_stime


class Ours:
    """A backbone of configs/, trained by an experiment."""

    def __init__(self, backbone, experiment):
        self.name, self.experiment = backbone, experiment

    def train(self, folder, epochs):
        """Train and evaluate; returns CPU seconds."""
        return run(
            [BIN / "python", "train.py", f"experiment={self.experiment}", "threads=1",
             f"backbone@model.backbone={self.name}", "~model.terms.zbl", "trainer=cpu",
             f"trainer.max_epochs={epochs}", f"output={folder}"],
            folder.with_suffix(".log"),
        )  # fmt: skip

    def errors(self, folder):
        """Return the errors on the test frames."""
        return json.loads((folder / "summary.json").read_text())["errors"]["test"]


class Peer:
    """Another trainer, on files of the same frames."""

    def __init__(self, name, experiment, folder):
        self.name = name
        composed = config.compose("train", [f"experiment={experiment}"])
        self.splits = instantiate(composed.data.source)
        self.batch, self.folder = composed.data.batch_size, folder
        for split in ("train", "val", "test"):
            write(getattr(self.splits, split), folder / f"{split}.extxyz")

    def errors(self, folder):
        """Return the errors of the trained file on the test frames."""
        out = folder / "errors"
        run(
            [BIN / "mlip", "evaluate", f"checkpoint={self.model(folder)}", "units=ase", "threads=1",
             f"frames={self.folder}/test.extxyz", f"output={out}"],
            folder / "evaluate.log",
        )  # fmt: skip
        return json.loads((out / "metrics.json").read_text())["errors"]


class MaceRunTrain(Peer):
    """``mace_run_train`` with the sizes of configs/backbone/mace.yaml."""

    def train(self, folder, epochs):
        """Train; returns CPU seconds."""
        folder.mkdir()
        options = {
            "name": "peer", "work_dir": folder, "train_file": self.folder / "train.extxyz",
            "valid_file": self.folder / "val.extxyz", "energy_key": "energy",
            "forces_key": "forces", "stress_key": "stress", "E0s": "average",
            "model": "ScaleShiftMACE", "interaction_first": "RealAgnosticInteractionBlock",
            "interaction": "RealAgnosticResidualInteractionBlock", "hidden_irreps": "32x0e",
            "max_ell": 2, "correlation": 2, "num_interactions": 2, "r_max": R_MAX,
            "loss": "huber", "compute_stress": True, "scaling": "rms_forces_scaling",
            "energy_weight": 50, "forces_weight": 10, "stress_weight": 100,
            "batch_size": self.batch, "valid_batch_size": self.batch, "max_num_epochs": epochs,
            "lr": 0.01, "ema_decay": 0.99, "clip_grad": 10, "default_dtype": "float32",
            "scheduler": "ExponentialLR", "lr_scheduler_gamma": 0.02 ** (1 / epochs),
            "device": "cpu", "seed": 1, "error_table": "PerAtomRMSEstressvirials",
        }  # fmt: skip
        command = [f"--{key}={value}" for key, value in options.items()]
        return run(
            [BIN / "mace_run_train", *command, "--amsgrad", "--ema"], folder.with_suffix(".log")
        )

    def model(self, folder):
        """Return the trained file."""
        return folder / "peer.model"


class NequipTrain(Peer):
    """``nequip-train`` with the sizes of configs/backbone/nequip.yaml."""

    def train(self, folder, epochs):
        """Train; returns CPU seconds."""
        folder.mkdir()
        (folder / "train.yaml").write_text(yaml.safe_dump(self.config(folder, epochs)))
        return run(
            [BIN / "nequip-train", "-cp", folder.resolve(), "-cn", "train",
             f"++hydra.run.dir={folder}"],
            folder.with_suffix(".log"),
        )  # fmt: skip

    def model(self, folder):
        """Return the packaged file."""
        path = folder / "peer.nequip.zip"
        run([BIN / "nequip-package", "build", folder / "last.ckpt", path], folder / "package.log")
        return path

    def config(self, folder, epochs):
        """Return the config of nequip; references by least squares, as in ours."""
        from mlip.data.energy_references import fit_energy_references
        from mlip.data.loader import average_neighbors, force_scale, to_graphs

        train = self.splits.train
        elements = self.splits.elements
        graphs = to_graphs(train, R_MAX, ("energy",))
        references = fit_energy_references(train).values
        loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": self.batch}
        transforms = [
            {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
             "model_type_names": elements},
            {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": R_MAX},
        ]  # fmt: skip
        shape = yaml.safe_load((paths.content("configs") / "backbone/nequip.yaml").read_text())
        return {
            "run": ["train"],
            "data": {
                "_target_": "nequip.data.datamodule.ASEDataModule",
                "seed": 1,
                "train_file_path": str((self.folder / "train.extxyz").resolve()),
                "val_file_path": str((self.folder / "val.extxyz").resolve()),
                "transforms": transforms,
                "train_dataloader": {**loader, "shuffle": True},
                "val_dataloader": loader,
            },
            "trainer": {
                "_target_": "lightning.Trainer",
                "accelerator": "cpu",
                "max_epochs": epochs,
                "logger": False,
                "enable_progress_bar": False,
                "gradient_clip_val": 10.0,
                "callbacks": [
                    {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                     "dirpath": str(folder.resolve()), "save_last": True}
                ],
            },
            "training_module": {
                "_target_": "nequip.train.EMALightningModule",
                "ema_decay": 0.99,
                "loss": {
                    "_target_": "nequip.train.EnergyForceStressLoss",
                    "coeffs": {"total_energy": 1.0, "forces": 1.0, "stress": 1.0},
                },
                "val_metrics": {"_target_": "nequip.train.EnergyForceStressMetrics"},
                "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01, "amsgrad": True},
                "lr_scheduler": {
                    "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
                                  "T_max": epochs},
                    "interval": "epoch",
                },
                "model": {
                    "_target_": "nequip.model.NequIPGNNModel",
                    "seed": 1,
                    "model_dtype": "float32",
                    "type_names": elements,
                    "r_max": R_MAX,
                    "num_layers": shape["layers"],
                    "l_max": shape["max_l"],
                    "parity": shape["parity"],
                    "num_features": shape["channels"],
                    "num_bessels": shape["radial_functions"],
                    "radial_mlp_depth": shape["radial_depth"],
                    "radial_mlp_width": shape["radial_width"],
                    "polynomial_cutoff_p": shape["cutoff_power"],
                    "avg_num_neighbors": float(average_neighbors(graphs)),
                    "per_type_energy_shifts": {k: float(references[k]) for k in elements},
                    "per_type_energy_scales": float(force_scale(train)),
                },
            },
        }  # fmt: skip


def write(frames, path):
    """Write frames with the names that every trainer reads."""
    images = []
    for frame in frames:
        atoms = frame.atoms.copy()
        labels = {name: frame.labels[name] for name in ("forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, energy=float(frame.labels["energy"]), **labels)
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


def measure(trainer, folder, seconds):
    """Return one row: epochs that fit, CPU seconds, errors; None where not one epoch fits."""
    first = trainer.train(folder / "one", 1)  # with the start and the evaluation, which are free
    if first > 2 * seconds:
        return None
    epoch = max((trainer.train(folder / "three", 3) - first) / 2, 0.05)
    epochs = min(MOST, round(seconds / epoch))
    if epochs < 1:
        return None
    used = trainer.train(folder / "run", epochs)
    errors = trainer.errors(folder / "run")
    row = {"epochs": epochs, "cpu_seconds": round(used), "epoch_seconds": round(epoch, 2)}
    return row | {name: round(errors[name], 4) for name in ERRORS}


def keep(experiment, name, row, seconds):
    """Put the row into the table, in place of an older one."""
    path = paths.content("benchmarks") / "accuracy.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [r for r in rows if (r["set"], r["trainer"]) != (experiment, name)]
    rows.append({"set": experiment, "trainer": name, "budget_seconds": seconds, **row})
    rows.sort(key=lambda r: (r["set"], r["forces_rmse_meV_per_A"]))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def trainers(experiment, folder, only):
    """Return the trainers of this environment."""
    found = [Ours(name, experiment) for name, pkg in PACKAGES.items() if find_spec(pkg)]
    peers = {"mace_run_train": MaceRunTrain, "nequip-train": NequipTrain}
    for name, package in PEERS.items():
        if find_spec(package) and (not only or name in only):
            (folder / name).mkdir(parents=True)
            found.append(peers[name](name, experiment, folder / name))
    return [trainer for trainer in found if not only or trainer.name in only]


def draw(rows):
    """Draw errors of forces against the time of an epoch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    sets = [name for name in SETS if any(row["set"] == name for row in rows)]
    names = sorted({row["trainer"] for row in rows})
    colours = {name: plt.get_cmap("tab10")(i) for i, name in enumerate(names)}
    figure, axes = plt.subplots(
        1, len(sets), figsize=(4.2 * len(sets), 3.8), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], sets, strict=True):
        own = sorted((r for r in rows if r["set"] == name), key=lambda r: r["epoch_seconds"])
        for number, row in enumerate(own):
            place = row["epoch_seconds"], row["forces_rmse_meV_per_A"]
            peer = row["trainer"] in PEERS
            axis.scatter(*place, color=colours[row["trainer"]], marker="X" if peer else "o", s=55)
            axis.annotate(
                row["trainer"],
                place,
                textcoords="offset points",
                xytext=(-6, 5) if number % 2 else (6, -11),
                fontsize=8,
                ha="right" if number % 2 else "left",
            )
        budget = f"{own[0]['budget_seconds']:g} CPU seconds each"
        axis.set(title=f"{name}, {budget}", xscale="log", yscale="log")
        axis.set_xlabel("CPU seconds an epoch")
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_formatter("{x:g}")
            ticks.set_minor_formatter("{x:g}")
            ticks.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.margins(0.25)
    axes[0][0].set_ylabel("RMSE of forces on test frames, meV/Å")
    figure.savefig(paths.content("benchmarks") / "accuracy.png", dpi=130)


def main(arguments):
    """Measure what is asked for."""
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    chosen = [a for a in arguments if "=" not in a] or SETS
    only = [name for name in options.get("only", "").split(",") if name]
    seconds = float(options.get("seconds", 150))
    with tempfile.TemporaryDirectory() as scratch:
        for experiment in chosen:
            folder = Path(scratch) / experiment
            for trainer in trainers(experiment, folder, only):
                place = folder / "runs" / trainer.name
                place.mkdir(parents=True)
                row = measure(trainer, place, seconds)
                print(experiment, trainer.name, row, flush=True)
                if row is not None:
                    keep(experiment, trainer.name, row, seconds)
                shutil.rmtree(place)
    draw(json.loads((paths.content("benchmarks") / "accuracy.json").read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
