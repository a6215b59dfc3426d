"""Horovod cluster training for ImageNet, with scaling efficiency as a live, explained number."""

__version__ = "0.1.0"
