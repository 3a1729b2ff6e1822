"""Heads map features to named outputs."""
