"""`python -m anomed`, for where scripts are not on the PATH."""

from anomed.cli import main

main()
