"""Who may speak to whom: this installation's own certificate authority, and certificates for hosts and for us.

Elliptic curve P-256. A host's certificate serves only to be a server at the host's own address, ours only to be a
client: whoever takes over a host can neither command another host nor stand in for one.
"""

import ipaddress
import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.conf import installation, private_root
from sandbox.hosts import certificates_of

AUTHORITY_YEARS = 20
YEARS = 3  # of all other certificates; joining a host again renews them
SKEW = timedelta(days=1)  # clocks of hosts may be wrong


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and the authority's own certificate, as PEM texts."""

    authority: str
    certificate: str
    key: str


def for_host(address: str) -> Issued:
    """A new certificate for an engine that listens at this address: an IP address or a DNS name.

    Nothing is kept here: the key is for the host alone.
    """
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        name = x509.DNSName(address)
    return _issue(address, ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName([name]))


def write_ours(name: str) -> None:
    """Makes what this server shows to the host of that name, in the host's folder. Replaces what was there."""
    issued = _issue(f"control {installation()[:8]}", ExtendedKeyUsageOID.CLIENT_AUTH, None)
    folder = certificates_of(name)
    for file, text in (("ca.pem", issued.authority), ("cert.pem", issued.certificate), ("key.pem", issued.key)):
        write_secret(folder / file, text)


def remove_ours(name: str) -> None:
    """Forgets how to speak to the host of that name."""
    shutil.rmtree(certificates_of(name), ignore_errors=True)


def days_left(name: str) -> int | None:
    """How long our certificate for that host is good, and about so the host's own; None if there is none."""
    try:
        text = (certificates_of(name) / "cert.pem").read_bytes()
    except OSError:
        return None
    return (x509.load_pem_x509_certificate(text).not_valid_after_utc - datetime.now(UTC)).days


def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """This installation's authority, made when it is first needed. The first of several processes wins."""
    path = private_root() / "authority.pem"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"AnoMed Arena {installation()[:8]}")])
        certificate = (
            _builder(subject, subject, key.public_key(), AUTHORITY_YEARS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        write_secret(temporary, _pem(key) + certificate.public_bytes(serialization.Encoding.PEM).decode())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    text = path.read_bytes()
    kept = serialization.load_pem_private_key(text, None)
    assert isinstance(kept, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(text), kept


def _issue(name: str, use: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None) -> Issued:
    authority, authority_key = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = (
        _builder(subject, authority.subject, key.public_key(), YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return Issued(authority.public_bytes(pem).decode(), certificate.public_bytes(pem).decode(), _pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, years: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=365 * years))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def write_secret(path: Path, text: str) -> None:
    """A whole file or none, readable by this user only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
