"""Errors of a potential on labelled frames: metrics, parity plots, report."""
