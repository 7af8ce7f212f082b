"""An MLP and a CNN on CIFAR-10 in PyTorch Lightning."""
