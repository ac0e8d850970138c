"""forkmaster: a pre-fork process manager for Python web applications."""

__version__ = "0.1.0"
