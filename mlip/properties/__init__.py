"""Properties: (Atoms, Calculator) to numbers; only ASE is imported here."""
