"""The ASGI entry point that uvicorn serves."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "anomed_site.settings")
django.setup(set_prefix=False)

from anomed_site.bodies import LimitedHandler  # noqa: E402 -- it needs the apps that were just set up

application = LimitedHandler()
