"""The hostile suite: what a stranger's image, archive or output may try next to patient data, and what stops it.

`python -m tests.hostile` (make hostile) enters every case into a running arena as a participant would.
"""
