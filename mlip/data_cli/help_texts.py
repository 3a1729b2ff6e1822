"""The help of each verb of ``mlip data``: one sentence for every argument."""

from mlip.data_cli.arguments import Verb

_INPUT = (
    "a file, a folder of files or of DFT runs (VASP, Quantum ESPRESSO, CP2K), a training store, or the name of "
    "a data set (mlip list datasets)"
)
_UNITS = (
    "what the labels of a file are in; formats that fix it (vasprun.xml, MPtrj, aselmdb, …), stores and data sets "
    "need none.\n"
    "units=ase: energy in eV, forces in eV/Å, stress in eV/Å³, positive in tension, under these names.\n"
    "Else a mapping of the labels to read, key and unit of each:\n"
    "units='{energy: {key: REF_energy, unit: eV}, forces: {key: REF_forces, unit: Ha/bohr}}'.\n"
    "A stress also says sign (tension_positive or compression_positive), order of six components "
    "([xx, yy, zz, yz, xz, xy]) and virial: true if it is one. `rest: ase` in the mapping reads the labels that it "
    "does not name as units=ase does"
)
_OPTIONS = (
    "options of the format's reader, a mapping in quotes.\n"
    "MPtrj: {energy: uncorrected | corrected}. aselmdb: {data: true} keeps every field, {data: [sid]} some.\n"
    "VASP, Quantum ESPRESSO, CP2K: {unconverged: mark | refuse, unfinished: refuse | keep, charges: bader | ddec6 | "
    "none}; VASP also {energy: sigma0 | free}.\n"
    "A folder of runs: {broken: refuse | skip} and {skip: [slab/2, slab/7]} leave runs out.\n"
    "MatPES: {charges: ddec6 | cm5}. RuNNer: {length: bohr | Å}"
)
_SELECTION = {
    "limit=1000": "how many frames at most: the first ones, or with seed or stratify chosen among all",
    "elements=Li,P,S": "frames that hold no other element",
    "where='max_force<10'": "windows, several with commas between: atoms, energy_per_atom (eV), max_force (eV/Å), "
    "max_stress (eV/Å³), total_charge (e), volume_per_atom (Å³) or a numeric info key, with < <= == >= >; or an info "
    "key that is to be true, such as converged. A frame without the quantity is left out",
    "source=TEXT": "frames whose source holds this text: FILE#INDEX, as messages name frames, or the run's folder",
    "stratify=composition": "the same number of each composition, prototype (formula type and space group), "
    "elements, material, trajectory, or value of any info key",
    "seed=0": "another seed, another choice; without it and stratify the first frames are taken",
}

VERBS = {
    "inspect": Verb(
        "Tell what an input holds: format, frames, elements, properties with ranges, and the units to declare.",
        {"INPUT": _INPUT},
        {"units=ase": _UNITS, "options='{…}'": _OPTIONS},
        {"--json": "print JSON"},
    ),
    "doctor": Verb(
        "Find what would spoil a training: units, signs, orders, duplicates, outliers, missing charges, mixed theory. "
        "The exit code is 1 if there is an error, 2 if there is nothing to check.",
        {"INPUT": _INPUT},
        {
            "units=ase": _UNITS,
            "reference=chgnet_0_3_0": "compare with a published potential, which finds signs, units and orders",
            "frames=24": "how many frames the reference is asked about",
            "output=DIR": "write doctor.html there; a killed comparison with a reference goes on",
            "options='{…}'": _OPTIONS,
        },
        {"--json": "print JSON"},
    ),
    "pull": Verb(
        "Download what the card of a data set declares, checked and resumed, and choose frames of it.",
        {"NAME": "the name of a data set (mlip list datasets), or a card"},
        {
            "subset=A,B": "subsets of the card; mlip data inspect NAME lists them",
            "split=val": "published splits; all of them if left out",
            "folder=DIR": "where files go; $MLIP_DATA/NAME or ~/.cache/mlip/NAME if left out",
            "output=FILE": "write the frames chosen: an .extxyz file (units=ase), or a training store if there is no suffix",
            **_SELECTION,
            "units=ase": "keys and units other than those of the card and the format, as in mlip data select",
            "options='{…}'": _OPTIONS,
        },
        notes="Without a network it says what to fetch elsewhere and where to put it; the same command then goes on.",
    ),
    "select": Verb(
        "Choose frames of an input and write them to a file.",
        {
            "INPUT": _INPUT,
            "OUTPUT": "an .extxyz file (units=ase), or a training store if there is no suffix",
        },
        {"units=ase": _UNITS, **_SELECTION, "options='{…}'": _OPTIONS},
    ),
    "convert": Verb(
        "Make a training store: larger than memory, read at random at once. After a kill the same command goes on.",
        {"INPUT": _INPUT, "OUTPUT": "a new folder"},
        {
            "units=ase": _UNITS,
            "workers=2": "processes; 1 if left out",
            "cutoff=5.0": "Å, within which edges are counted",
            "neighbors=true": "store the neighbour lists too",
            "shard_frames=5000": "frames of each file of the store",
            "options='{…}'": _OPTIONS,
        },
    ),
    "label": Verb(
        "Compute labels by any calculator, in parallel. After a kill the same command goes on.",
        {"INPUT": "structures; labels in it are not read", "OUTPUT": "an .extxyz file (units=ase)"},
        {
            "calculator=gfn2_xtb": "mlip list calculator",
            "workers=2": "processes; each computes one frame at a time",
            "threads=1": "of each process",
            "total_charge=0": "e, of frames that state none; needed where only some do, or the calculator needs it",
            "timeout_s=600": "a frame that takes longer is a failure",
            "checkpoint=FILE": "of calculator=checkpoint",
            "head=NAME": "of a MACE .model with several",
            "device=cpu": "cpu or cuda",
            "options='{…}'": _OPTIONS,
        },
    ),
    "sample": Verb(
        "Make the structures of a recipe, to be labelled; the same for the same seed.",
        {"RECIPE": "mlip list recipe", "OUTPUT": "an .extxyz file"},
        {
            "frames=100": "how many; the recipe's number if left out",
            "seed=0": "the recipe's seed if left out",
        },
    ),
}
