"""`python -m sandbox.gateway`: for tests. In its container the folder is a package of its own, see `sandbox.walls`."""

from .main import main

main()
