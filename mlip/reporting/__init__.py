"""Figures and HTML pages, in one look."""
