"""Layers that are faster on a CPU than PyTorch's own, and compute the same function."""
