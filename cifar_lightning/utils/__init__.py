"""Helpers that know nothing of CIFAR-10 or Lightning."""
