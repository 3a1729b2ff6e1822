"""Potentials: a backbone, heads in listed order, and terms."""
