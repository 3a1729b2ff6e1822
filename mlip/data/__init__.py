"""Frames from files: cards, readers, checks, splits, energy references, batches."""
