"""Errors of bundles."""


class BundleError(ValueError):
    """A run that cannot be bundled, or a file that is not a valid bundle; the message gives the reason."""
