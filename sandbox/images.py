"""Base images."""


def ensure(names):
    """x."""
