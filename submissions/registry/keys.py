"""The key that signs tokens for the registry, and the certificate by which the registry knows it. Made once."""

import base64
import datetime
import os
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from submissions.registry import conf

ALGORITHM = "ES256"
_YEARS = datetime.timedelta(days=3650)


def sign(claims: dict[str, Any]) -> str:
    """A token of these claims, as https://distribution.github.io/distribution/spec/auth/jwt/ describes it."""
    key, certificate = _signer(conf.root() / "signing.pem")
    der = certificate.public_bytes(serialization.Encoding.DER)
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"x5c": [base64.b64encode(der).decode()]})


def certificate_pem() -> bytes:
    """The certificate alone, for the registry's `rootcertbundle`."""
    _key, certificate = _signer(conf.root() / "signing.pem")
    return certificate.public_bytes(serialization.Encoding.PEM)


@lru_cache(maxsize=4)
def _signer(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    if not path.exists():
        _make(path)
    pem = path.read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(pem)


def _make(path: Path) -> None:
    """A key with its certificate in one file. The first of several processes wins, none sees half of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AnoMed Arena: tokens of the registry")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + _YEARS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    temporary.touch(mode=0o600)
    temporary.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
