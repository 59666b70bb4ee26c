"""Loaded before everything else (see pyproject.toml): the tests keep all their state in a folder of their own."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ["ANOMED_VAR"] = tempfile.mkdtemp(prefix="anomed-tests-")
(Path(os.environ["ANOMED_VAR"]) / "static").mkdir()  # as after collectstatic
os.environ.setdefault("ANOMED_LOG_LEVEL", "WARNING")
os.environ["ANOMED_REGISTRY"] = "off"  # tests of the registry have one each, at a port of its own
atexit.register(shutil.rmtree, os.environ["ANOMED_VAR"], ignore_errors=True)
