"""The participants' command line of AnoMed Arena."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("anomed-arena-client")
except PackageNotFoundError:  # run from a copied folder, not installed
    __version__ = "0"
