"""Ratios to the bare thing, measured in one run: `make benchmarks`, or `python -m benchmarks NAME ...` for some."""
