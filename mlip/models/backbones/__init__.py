"""Backbones map a graph to features of its atoms."""
