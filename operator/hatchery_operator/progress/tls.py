"""TLS of the progress endpoint: this replica's certificate, and the CA bundle by which pods verify every replica.

Each replica generates a key in memory (no key on a disk, no Secret) and publishes its certificate under a data key of
its own in a ConfigMap of the operator's namespace. The leader joins the certificates of all replicas into one bundle
and writes it to each namespace in use. A mounted certificate replaces all of this.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hatchery_operator.domain.labels import MANAGED_BY_LABEL, MANAGER
from hatchery_operator.domain.objects import Manifest, stage_in_flight
from hatchery_operator.domain.progress_route import CA_CONFIG_MAP, CA_KEY
from hatchery_operator.errors import ApiError, OperatorError
from hatchery_operator.kube import ApplyOnce, Cache, Cluster

LOG: Final = logging.getLogger(__name__)

LIFETIME: Final = timedelta(days=3650)
"""Validity of a generated certificate: longer than any process lives, and every start generates a new one."""

CLOCK_SKEW: Final = timedelta(hours=1)
"""How far the clock of a pod's node may lag."""

MOST_CERTIFICATES: Final = 8
"""Certificates in the bundle: two rolling updates of a few replicas; a restarted container replaces its own."""

REFRESH_SECONDS: Final = 10.0
"""Interval at which the leader reads what replicas have published."""

PUBLISH_SECONDS: Final = 60.0
"""Interval at which a replica checks that its certificate is still published."""


@dataclass(frozen=True)
class Certificate:
    """A server certificate and the CA that signed it."""

    ca_pem: str
    """CA certificate by which clients verify the server; public."""
    chain_pem: bytes = field(repr=False)
    """Server certificate and its private key."""

    def server_context(self) -> ssl.SSLContext:
        """TLS context of the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Makes new connections of a context use this certificate."""
        # OpenSSL reads keys from paths only; an anonymous file keeps the key off every disk
        with os.fdopen(os.memfd_create("hatchery-progress"), "wb") as memory:
            memory.write(self.chain_pem)
            memory.flush()
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")


def read_certificate(folder: Path) -> Certificate:
    """Reads the certificate from a mounted Secret of type `kubernetes.io/tls`, which somebody else renews."""
    chain = (folder / "tls.crt").read_bytes() + b"\n" + (folder / "tls.key").read_bytes()
    return Certificate((folder / "ca.crt").read_text(encoding="utf-8"), chain)


def make_certificate(hosts: list[str], now: datetime) -> Certificate:
    """Generates a certificate for host names or addresses, signed by a CA whose key is discarded."""
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


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateBuilder:
    # Python 3.13 verifies strictly: without both key identifiers and the key usage every pod rejects the certificate
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


class ReplicaCertificates:
    """The certificates of all replicas, in a ConfigMap of the operator's namespace."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, replica: str, own: str) -> None:
        """Creates one replica's view of the certificates.

        Args:
            cluster: the API server.
            namespace: the operator's namespace.
            name: name of the ConfigMap.
            replica: name of this replica's pod: a restarted container replaces what it published before.
            own: this replica's certificate, PEM.
        """
        self._cluster = cluster
        self._metadata = {"name": name, "namespace": namespace}
        self._replica = replica
        self._key = f"{replica}.crt"
        self._own = own

    async def keep_published(self) -> None:
        """Publishes this replica's certificate, and publishes it again when it is removed, until cancelled."""
        while True:
            try:
                if (await self._published()).get(self._key) != self._own:
                    await self._publish()
            except ApiError as error:
                LOG.warning("cannot publish the progress certificate: %s", error)
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish(self) -> None:
        await self._cluster.apply(self._manifest({self._key: self._own}), f"{MANAGER}-{self._replica}", fenced=False)

    def _manifest(self, data: dict[str, Any]) -> Manifest:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata, "data": data}

    async def _published(self) -> dict[str, str]:
        found = await self._cluster.get("ConfigMap", self._metadata["namespace"], self._metadata["name"])
        return dict(found.get("data") or {}) if found else {}

    async def joined(self) -> str:
        """Joins the newest certificates into one PEM bundle and removes older ones from the ConfigMap."""
        published = {**await self._published(), self._key: self._own}
        by_age = sorted(published, key=lambda key: (_not_before(published[key]), key), reverse=True)
        kept = sorted({self._key, *[key for key in by_age if _not_before(published[key])][: MOST_CERTIFICATES - 1]})
        if dropped := {key: None for key in by_age if key not in kept}:
            await self._cluster.merge(self._manifest(dropped))
        return "".join(f"{published[key].strip()}\n" for key in kept)


class CaBundle:
    """The CA bundle in the namespaces in use; lives for one term of the leader."""

    def __init__(self, cluster: Cluster, cache: Cache, read: Callable[[], Awaitable[str]]) -> None:
        """`read` returns the bundle as it should be now."""
        self._cache = cache
        self._read = read
        self._text: str | None = None
        self._config_maps = ApplyOnce(cluster)
        # of several concurrent passes the first reads, and the others wait for it
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        """Keeps the bundle in all namespaces in use up to date until cancelled."""
        while True:
            try:
                self._text = await self._read()
            except OperatorError as error:
                LOG.warning("cannot read the progress certificates: %s", error)
            else:
                for namespace in sorted({run.namespace for run in self._cache.runs() if stage_in_flight(run.status)}):
                    # a failure in one namespace must not cost another its live progress
                    try:
                        await self.ensure(namespace)
                    except OperatorError as error:
                        LOG.warning("cannot write the progress CA bundle to namespace %s: %s", namespace, error)
            await asyncio.sleep(REFRESH_SECONDS)

    async def ensure(self, namespace: str) -> None:
        """Writes the bundle to a namespace, unless it is there already; one that rejects it has no live progress."""
        async with self._reading:
            if self._text is None:
                self._text = await self._read()
        # applied without reading: reading would need permission to read every ConfigMap of the namespace
        metadata = {"name": CA_CONFIG_MAP, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CA_KEY: self._text}}
        await self._config_maps.ensure(manifest, lacking="live progress")

    def forget(self, namespace: str) -> None:
        """Forgets a namespace that may be gone: one of the same name starts without the bundle."""
        self._config_maps.forget(namespace)


def _not_before(pem: str) -> float:
    """Start of a certificate's validity; 0 for text that is not a certificate."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_before_utc.timestamp()
    except ValueError:
        return 0.0
