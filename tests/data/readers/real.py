"""Real frames in the layouts of the big public sets, and what they must read back as."""

import json
import zlib
from pathlib import Path

import lmdb
import numpy as np
from ase.data import chemical_symbols

from mlip import paths
from mlip.data.readers import read_structures

KBAR = -1602.1766208


def frames():
    """Eight frames of MPtrj with every field, and a hundred others without magnetic moments."""
    folder = paths.content("datasets") / "mptrj"
    return [
        frame
        for name in ("full_fields", "test")
        for frame in read_structures(folder / f"{name}.extxyz.gz")
    ]


def structure(atoms):
    scaled = atoms.get_scaled_positions(wrap=False)
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": None,
        "lattice": {"matrix": atoms.cell.array.tolist(), "pbc": [True] * 3},
        "sites": [
            {
                "species": [{"element": chemical_symbols[z], "occu": 1}],
                "abc": abc,
                "xyz": xyz,
                "label": chemical_symbols[z],
                "properties": {},
            }
            for z, abc, xyz in zip(
                atoms.numbers, scaled.tolist(), atoms.positions.tolist(), strict=True
            )
        ],
    }


def values(frame):
    """Energy, forces, stress of a frame of ``frames()`` in eV and Å."""
    arrays = source_arrays(frame)
    return float(frame.info["energy"]), arrays["forces"], np.array(frame.info["stress"])


def source_arrays(frame):
    from mlip.data.readers import read_records
    from mlip.data.readers.recognize import format_of

    path, _, number = frame.source.rpartition("#")
    records = CACHE.setdefault(path, list(read_records(Path(path), format_of(Path(path)))))
    return records[int(number)].arrays


CACHE: dict = {}


def mptrj_record(frame):
    energy, forces, stress = values(frame)
    magmoms = source_arrays(frame).get("magmoms")
    corrected = float(frame.info.get("corrected_total_energy", energy - 1.0))
    return {
        "structure": structure(frame.atoms),
        "uncorrected_total_energy": energy,
        "corrected_total_energy": corrected,
        "energy_per_atom": corrected / len(frame),
        "ef_per_atom": -0.25,
        "e_per_atom_relaxed": -1.5,
        "ef_per_atom_relaxed": -0.25,
        "force": forces.tolist(),
        "stress": (stress * KBAR).tolist(),
        "magmom": None if magmoms is None else magmoms.tolist(),
        "bandgap": None,
        "mp_id": "mp-1",
    }


def mptrj(chosen, per_material=4):
    """The dictionary of the published JSON, ids made up."""
    content = {}
    for number, frame in enumerate(chosen):
        material = f"mp-{number // per_material}"
        content.setdefault(material, {})[f"{material}-0-{number}"] = mptrj_record(frame)
    return content


def write_mptrj(path, chosen):
    path.write_text(json.dumps(mptrj(chosen)))
    return path


def row(frame, number, encode=lambda array: array.tolist()):
    """One row of OMat24: an ASE row with ``data``."""
    energy, forces, stress = values(frame)
    atoms = frame.atoms
    return {
        "numbers": encode(atoms.numbers),
        "positions": encode(atoms.positions),
        "cell": encode(atoms.cell.array),
        "pbc": encode(atoms.pbc),
        "unique_id": f"{number:032x}",
        "ctime": 24.5,
        "mtime": 24.5,
        "user": "user",
        "initial_magmoms": encode(np.zeros(len(atoms))),
        "calculator": "unknown",
        "calculator_parameters": {},
        "energy": energy,
        "forces": encode(forces),
        "stress": encode(stress.ravel()[[0, 4, 8, 5, 2, 1]]),
        "data": {
            "sid": f"agm{number:09d}_rattled-300",
            "calc_id": number,
            "task_type": "Structure Optimization",
            "composition_reduced": dict.fromkeys(atoms.get_chemical_symbols(), 1.0),
            "elements": sorted(set(atoms.get_chemical_symbols())),
            "prototype_label": "ABC_9111_spg46",
            "prototype_error": None,
            "parent_id": f"agm{number // 4:09d}",
            "parent_prototype_label": "ABC_9111_spg46",
            "energy_corrected_mp2020": energy - 1.0,
            "energy_adjustments_mp2020": [],
            "energy_correction_uncertainty_mp2020": 0.1,
            "correction_warnings": [],
        },
    }


def flat(array):
    """ASE's encoding of an array."""
    return {"__ndarray__": [list(array.shape), str(array.dtype), array.ravel().tolist()]}


def write_aselmdb(path, rows, deleted=(), nextid=None):
    environment = lmdb.open(str(path), subdir=False, map_size=2**30, lock=False)
    with environment.begin(write=True) as transaction:
        for number, content in enumerate(rows, 1):
            if number not in deleted:
                transaction.put(str(number).encode(), packed(content))
        transaction.put(b"nextid", packed(nextid or len(rows) + 1))
        if deleted:
            transaction.put(b"deleted_ids", packed(list(deleted)))
    environment.close()
    return path


def packed(content):
    return zlib.compress(json.dumps(content).encode())
