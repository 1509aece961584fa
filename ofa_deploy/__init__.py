"""Search, specialise and deploy once-for-all networks."""

__version__ = "0.1.0"
