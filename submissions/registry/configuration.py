"""What the registry is told: where it keeps things, whose tokens it believes, whom it tells of a push."""

import json
from typing import Any

from django.conf import settings
from django.urls import reverse

from submissions.registry import conf, keys

SERVICE = "anomed-registry"  # the audience of tokens
ISSUER = "anomed-arena"
EVENT_TYPES_LEFT_OUT = ["application/octet-stream"]  # layers: only manifests become entries


def write() -> str:
    """Writes the registry's configuration and returns its path. It holds secrets, as does the folder it is in."""
    conf.storage().mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, config = conf.root() / "certificate.pem", conf.root() / "config.json"
    for path, text in ((certificate, keys.certificate_pem()), (config, json.dumps(_configuration()).encode())):
        path.touch(mode=0o600)
        path.write_bytes(text)
    return str(config)


def _configuration() -> dict[str, Any]:
    """https://distribution.github.io/distribution/about/configuration/ (JSON is YAML).

    What is left out is closed by default in 2.8: manifests of schema 1, and most layers that name addresses elsewhere.
    """
    return {
        "version": "0.1",
        "log": {"level": "error", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(conf.storage()), "maxthreads": 100},
            "delete": {"enabled": True},
            "redirect": {"disable": True},
            "maintenance": {"uploadpurging": {"enabled": True, "age": "6h", "interval": "1h", "dryrun": False}},
        },
        "http": {
            "addr": f"127.0.0.1:{conf.conf().port}",
            "secret": conf.secret("http"),
            "relativeurls": True,  # whatever name the proxy before us has
            "headers": {"X-Content-Type-Options": ["nosniff"]},
        },
        "auth": {
            "token": {
                "realm": settings.SITE_URL + reverse("registry-token"),
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(conf.root() / "certificate.pem"),
            }
        },
        "notifications": {
            "endpoints": [
                {
                    "name": "arena",
                    "url": settings.SITE_URL + reverse("registry-events"),
                    "headers": {"Authorization": [f"Bearer {conf.secret('events')}"]},
                    "timeout": "5s",
                    "threshold": 3,
                    "backoff": "5s",
                    "ignoredmediatypes": EVENT_TYPES_LEFT_OUT,
                }
            ]
        },
    }
