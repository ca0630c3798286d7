"""The version of this package; the build reads it from here, for asking the installation would take longer."""

__version__ = "0.1.0"
