"""The progress endpoint's certificate: made in memory at start (no key on a disk, no Secret), or one mounted."""

import os
import ssl
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME: Final = timedelta(days=3650)
"""Longer than any operator process lives; every start makes a new certificate."""

CLOCK_SKEW: Final = timedelta(hours=1)
"""How far the clock of a pod's node may lag."""


@dataclass(frozen=True)
class Certificate:
    """A server certificate and the authority that signed it."""

    ca_pem: str
    """What clients verify with; public."""
    chain_pem: bytes = field(repr=False)
    """Server certificate and its private key."""

    def server_context(self) -> ssl.SSLContext:
        """TLS for the listening side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Uses this certificate for new connections of a context."""
        # OpenSSL reads keys from paths only; an anonymous file keeps this one off every disk
        with os.fdopen(os.memfd_create("hatchery-progress"), "wb") as memory:
            memory.write(self.chain_pem)
            memory.flush()
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")


def read_certificate(folder: Path) -> Certificate:
    """A certificate that somebody else makes and renews, as a Secret of type `kubernetes.io/tls` is mounted."""
    chain = (folder / "tls.crt").read_bytes() + b"\n" + (folder / "tls.key").read_bytes()
    return Certificate((folder / "ca.crt").read_text(encoding="utf-8"), chain)


def make_certificate(hosts: list[str], now: datetime) -> Certificate:
    """A certificate for some host names or addresses, signed by an authority whose key is dropped at once."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("hatchery-progress-ca")
    ca = _authority(_unsigned(ca_name, ca_name, ca_key, ca_key, now)).sign(ca_key, hashes.SHA256())
    leaf = _server(_unsigned(_name("hatchery-progress"), ca_name, key, ca_key, now), hosts)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return Certificate(
        ca_pem=ca.public_bytes(pem).decode(),
        chain_pem=leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem) + key_pem,
    )


def service_hosts(service: str, namespace: str) -> list[str]:
    """The names under which pods may reach a Service."""
    return [
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
        service,
    ]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateBuilder:
    # Python 3.13 verifies strictly: both key identifiers and the key usage must be there, or every pod refuses
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(
        _key_usage(authority=True), critical=True
    )


def _server(builder: x509.CertificateBuilder, hosts: list[str]) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    return x509.IPAddress(address)
