"""ASE calculators of our checkpoints and of published universal potentials."""
