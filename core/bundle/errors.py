"""Why a bundle is refused."""


class BundleError(ValueError):
    """A run that cannot be bundled, or a file that is no bundle, or not a whole one; the text says what is wrong."""
