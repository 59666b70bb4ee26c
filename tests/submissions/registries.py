"""A real registry for a test, and a client that says to it what no polite client would."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx

from submissions.registry import conf
from tests.sandbox.image_builder import MANIFEST_TYPE, ImageBuilder, sha256


@dataclass
class Pusher:
    """Speaks the registry's protocol with a token, step by step."""

    token: str
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx.Client(base_url=f"{conf.url()}/v2", headers=headers, timeout=30)

    def blob(self, repository: str, data: bytes, *, digest: str = "") -> httpx.Response:
        """Sends a layer or configuration; under its own digest, if no other is given."""
        begun = self.http.post(f"/{repository}/blobs/uploads/")
        if begun.status_code != 202:
            return begun
        query = {"digest": digest or f"sha256:{sha256(data)}"}
        place = httpx.URL(f"{conf.url()}{begun.headers['Location']}").copy_merge_params(query)
        return self.http.put(place, content=data, headers={"Content-Type": "application/octet-stream"})

    def manifest(self, repository: str, tag: str, text: bytes, media_type: str = MANIFEST_TYPE) -> httpx.Response:
        return self.http.put(f"/{repository}/manifests/{tag}", content=text, headers={"Content-Type": media_type})

    def image(self, repository: str, tag: str, image: ImageBuilder, *, compress: bool = True) -> str:
        """Pushes a whole image and returns the digest of its manifest."""
        files, descriptor = image.oci_blobs(compress=compress)
        manifest = files.pop(f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}")
        for data in files.values():
            assert self.blob(repository, data).status_code == 201
        answer = self.manifest(repository, tag, manifest)
        assert answer.status_code == 201, answer.text
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.http.get(f"/{path}", **more)
