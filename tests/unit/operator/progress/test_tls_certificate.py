"""A generated certificate: strict clients accept it under every name, and nobody else can use it."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from hatchery_operator.progress.tls import CLOCK_SKEW, LIFETIME, make_certificate

NOW = datetime.now(UTC)
SERVICE = ["progress.system.svc", "progress.system.svc.cluster.local", "progress.system", "progress"]
"""Names under which pods may reach a Service."""


def _strict(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 turns on by itself
    return context


def _handshake(certificate, client: ssl.SSLContext, host: str) -> str | None:
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            with certificate.server_context().wrap_socket(far, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            far.close()  # the client refused the certificate

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=host) as tls:
            tls.sendall(b"x")
            return tls.version()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("host", [*SERVICE, "127.0.0.1", "::1"])
def test_a_strict_client_takes_the_certificate_under_every_name(host):
    certificate = make_certificate([*SERVICE, "127.0.0.1", "::1"], NOW)
    assert _handshake(certificate, _strict(certificate.ca_pem), host) == "TLSv1.3"


def test_another_name_is_refused():
    certificate = make_certificate(SERVICE, NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(certificate, _strict(certificate.ca_pem), "progress.other.svc")


def test_the_authority_of_another_start_is_refused():
    first, second = (make_certificate(["localhost"], NOW) for _ in range(2))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        _handshake(first, _strict(second.ca_pem), "localhost")


def test_an_expired_certificate_is_refused():
    certificate = make_certificate(["localhost"], NOW - LIFETIME - timedelta(days=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        _handshake(certificate, _strict(certificate.ca_pem), "localhost")


def test_a_node_whose_clock_lags_takes_it():
    certificate = make_certificate(["localhost"], NOW + CLOCK_SKEW - timedelta(minutes=1))
    assert _handshake(certificate, _strict(certificate.ca_pem), "localhost")


def test_the_authority_may_sign_and_the_server_may_not():
    certificate = make_certificate(["localhost"], NOW)
    ca = x509.load_pem_x509_certificate(certificate.ca_pem.encode())
    leaf = x509.load_pem_x509_certificate(certificate.chain_pem)
    usage = [c.extensions.get_extension_for_class(x509.KeyUsage) for c in (ca, leaf)]
    assert [(u.critical, u.value.key_cert_sign) for u in usage] == [(True, True), (True, False)]
    assert [c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for c in (ca, leaf)] == [True, False]


def test_the_private_key_shows_neither_in_the_ca_nor_in_the_representation():
    certificate = make_certificate(["localhost"], NOW)
    assert "PRIVATE" not in certificate.ca_pem
    assert "PRIVATE" not in repr(certificate)
