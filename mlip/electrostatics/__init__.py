"""Coulomb sums of Gaussian charges and charge equilibration: pure functions without weights."""
