import base64
import json
import ssl
from pathlib import Path

import pytest
from tests.cluster.pki import Authority, Identity

SERVER = Identity("server", "demo", ("group",), ("DNS:localhost", "IP:127.0.0.1"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("pki"))
    made.ensure([SERVER])
    return made


def test_the_authority_passes_strict_verification(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate_of(SERVER), authority.key_of(SERVER))
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(sent, received, server_side=True)
    here = context.wrap_bio(received, sent, server_hostname="localhost")
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert here.getpeercert()["subject"][-1] == (("commonName", "demo"),)


def test_nothing_is_issued_twice_and_changed_names_are_issued_anew(authority: Authority) -> None:
    before = authority.certificate_of(SERVER).read_bytes()
    authority.ensure([SERVER])
    assert authority.certificate_of(SERVER).read_bytes() == before
    authority.ensure([Identity("server", "demo", ("group",), ("DNS:localhost",))])
    assert authority.certificate_of(SERVER).read_bytes() != before


def test_a_kubeconfig_stands_alone_and_is_private(authority: Authority, tmp_path: Path) -> None:
    path = authority.write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", {"token": "t"}, "team")
    config = json.loads(path.read_text())
    assert path.stat().st_mode & 0o077 == 0
    assert config["contexts"][0]["context"]["namespace"] == "team"
    data = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert base64.b64decode(data) == authority.certificate.read_bytes()
