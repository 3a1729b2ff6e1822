"""The training run: Lightning module, losses, callbacks."""
