"""A worker in a process of its own, to be killed: `python worker_process.py JSON`, with the settings of the test."""

import json
import os
import sys
from pathlib import Path

given = json.loads(sys.argv[1])
sys.path[:0] = given["path"]
os.environ["DJANGO_SETTINGS_MODULE"] = "anomed_site.settings"

import django  # noqa: E402  the path comes first
from django.conf import settings  # noqa: E402

settings.DATABASES["default"]["NAME"] = given["database"]
settings.PRIVATE_ROOT = Path(given["private_root"])
settings.INSTALLATION = given["installation"]
settings.SANDBOX = given["sandbox"]
django.setup()

from conftest import Questions  # noqa: E402

from sandbox import purposes, worker  # noqa: E402

purposes.register("questions", Questions())
print("ready", flush=True)
while True:
    worker.work()
    if given["once"]:
        break
    sys.stdin.readline()
