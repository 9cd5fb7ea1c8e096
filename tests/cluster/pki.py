"""Certificates and kubeconfigs, made by the openssl program.

Python 3.13 in pods verifies strictly: the authority needs keyUsage, and every certificate both key identifiers.
"""

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.files import write_if_changed

VALID_DAYS = "3650"
_CURVE = ("-pkeyopt", "ec_paramgen_curve:prime256v1")

_AUTHORITY_EXTENSIONS = """\
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier=hash
"""
_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def _openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        msg = f"{' '.join(command[:3])} failed: {result.stderr.strip()}"
        raise ClusterError(msg)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate to issue: who it names, the groups (organizations) and the names it serves under."""

    name: str
    common_name: str
    groups: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    """Subject alternative names as openssl writes them: `DNS:…` or `IP:…`."""

    @property
    def subject(self) -> str:
        """The distinguished name in openssl's notation."""
        return "".join(f"/O={group}" for group in self.groups) + f"/CN={self.common_name}"


class Authority:
    """A certificate authority in one folder, with the key pair that signs ServiceAccount tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.folder / "ca.crt"

    @property
    def token_key(self) -> Path:
        """Private key for ServiceAccount tokens."""
        return self.folder / "tokens.key"

    @property
    def token_public_key(self) -> Path:
        """Public key for ServiceAccount tokens."""
        return self.folder / "tokens.pub"

    def certificate_of(self, identity: Identity) -> Path:
        """Return where an identity's certificate lies."""
        return self.folder / f"{identity.name}.crt"

    def key_of(self, identity: Identity) -> Path:
        """Return where an identity's private key lies."""
        return self.folder / f"{identity.name}.key"

    def ensure(self, identities: Sequence[Identity]) -> None:
        """Make what is missing; a certificate whose names changed is issued anew."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.token_public_key.exists():
            self._make_authority()
        for identity in identities:
            issued_for = self.folder / f"{identity.name}.issued"
            if not issued_for.exists() or issued_for.read_text(encoding="utf-8") != repr(identity):
                self._issue(identity)
                issued_for.write_text(repr(identity), encoding="utf-8")

    def _make_authority(self) -> None:
        key, request = self.folder / "ca.key", self.folder / "ca.csr"
        extensions = self.folder / "ca.ext"
        extensions.write_text(_AUTHORITY_EXTENSIONS, encoding="ascii")
        subject = ("-subj", "/CN=hatchery-test-authority")
        _openssl("req", "-new", "-newkey", "ec", *_CURVE, "-nodes", "-keyout", key, "-out", request, *subject)
        signing = ("-signkey", key, "-days", VALID_DAYS, "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", self.certificate, *signing)
        _openssl("genpkey", "-algorithm", "EC", *_CURVE, "-out", self.token_key)
        _openssl("pkey", "-in", self.token_key, "-pubout", "-out", self.token_public_key)

    def _issue(self, identity: Identity) -> None:
        request = self.folder / f"{identity.name}.csr"
        extensions = self.folder / f"{identity.name}.ext"
        names = f"subjectAltName={','.join(identity.serves)}\n" if identity.serves else ""
        extensions.write_text(_EXTENSIONS + names, encoding="ascii")
        target = ("-keyout", self.key_of(identity), "-out", request)
        _openssl("req", "-new", "-newkey", "ec", *_CURVE, "-nodes", *target, "-subj", identity.subject)
        signing = ("-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-days", VALID_DAYS)
        _openssl(
            "x509", "-req", "-in", request, *signing, "-extfile", extensions, "-out", self.certificate_of(identity)
        )

    def write_kubeconfig(self, path: Path, server: str, user: dict[str, str], namespace: str = "default") -> Path:
        """Write a kubeconfig for one user entry (a certificate pair or a token), readable by its owner only."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "hatchery",
            "clusters": [
                {
                    "name": "hatchery",
                    "cluster": {"server": server, "certificate-authority-data": _encoded(self.certificate)},
                }
            ],
            "users": [{"name": "user", "user": user}],
            "contexts": [
                {
                    "name": "hatchery",
                    "context": {"cluster": "hatchery", "user": "user", "namespace": namespace},
                }
            ],
        }
        write_if_changed(path, json.dumps(config, indent=1), mode=0o600)
        return path

    def user(self, identity: Identity) -> dict[str, str]:
        """Return the kubeconfig user entry of an issued identity."""
        return {
            "client-certificate-data": _encoded(self.certificate_of(identity)),
            "client-key-data": _encoded(self.key_of(identity)),
        }


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
