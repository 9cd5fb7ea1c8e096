"""Configuration of what runs on the node: containerd, CNI, kubelet, kube-proxy, CoreDNS.

Pure functions of the folders; JSON is used wherever YAML is read, since every JSON document is YAML.
"""

import json
from pathlib import Path

from tests.cluster.files import write_if_changed
from tests.cluster.layout import (
    CLUSTER_DOMAIN,
    DNS_PORT,
    DNS_SERVICE,
    NODE_ADDRESS,
    NODE_NAME,
    NODE_POD_CIDR,
    POD_BRIDGE,
    POD_CIDR,
    Layout,
)
from tests.cluster.pki import Authority, Identity

KUBELET = Identity(
    "kubelet",
    f"system:node:{NODE_NAME}",
    ("system:nodes",),
    (f"DNS:{NODE_NAME}", f"IP:{NODE_ADDRESS}"),
)
PROXY = Identity("kube-proxy", "system:kube-proxy")
DNS = Identity("coredns", "system:coredns")
NODE_IDENTITIES = (KUBELET, PROXY, DNS)

PAUSE_IMAGE = "localhost/pause:1"
"""Imported into containerd at `up`; it is never pulled."""

Table = dict[str, object]


def toml(table: Table, path: tuple[str, ...] = ()) -> str:
    """Render nested tables of scalars and lists of strings; JSON's literals for those are TOML's as well."""
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(json.dumps(part) for part in path)}]"] if path and scalars else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in scalars.items()]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in table.items():
        if isinstance(value, dict):
            text += toml(value, (*path, key))
    return text


def containerd_config(layout: Layout, binaries: Path) -> str:
    """Return containerd's configuration: images in the cache, everything that runs in the state."""
    runtime: Table = {
        "restrict_oom_score_adj": True,  # Root may lack CAP_SYS_RESOURCE, as it does inside many sandboxes.
        "containerd": {"runtimes": {"runc": _runc(binaries)}},
        "cni": {"bin_dirs": [str(binaries)], "conf_dir": str(layout.state / "cni")},
    }
    images: Table = {
        "snapshotter": "overlayfs",
        "discard_unpacked_layers": True,  # The registry beside it still has them: 6 GB less for the jobs image.
        "pinned_images": {"sandbox": PAUSE_IMAGE},
    }
    return toml(
        {
            "version": 3,
            "root": str(layout.images / "containerd"),
            "state": str(layout.state / "containerd" / "run"),
            "grpc": {"address": str(layout.containerd_socket)},
            "plugins": {
                "io.containerd.cri.v1.images": images,
                "io.containerd.cri.v1.runtime": runtime,
                "io.containerd.nri.v1.nri": {"disable": True},  # Its socket lies outside our folders.
            },
        }
    )


def _runc(binaries: Path) -> Table:
    return {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": str(binaries / "runc")}}


def cni_config(layout: Layout) -> Table:
    """Return the network of the pods: one bridge, addresses recorded in the state folder."""
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.state / "cni-addresses"),
        "ranges": [[{"subnet": NODE_POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "ipMasqBackend": "iptables",  # One kind of rule to take away again.
        "hairpinMode": True,
        "ipam": addresses,
    }
    portmap = {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "hatchery", "plugins": [bridge, portmap]}


def kubelet_config(layout: Layout, authority: Authority) -> Table:
    """Return the kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",  # No systemd is needed on the machine.
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,  # kube-proxy makes its own; the kubelet's would only be left behind.
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(authority.certificate)},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(authority.certificate_of(KUBELET)),
        "tlsPrivateKeyFile": str(authority.key_of(KUBELET)),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": "/etc/resolv.conf",
        "podLogsDir": str(layout.state / "logs" / "pods"),
        "volumePluginDir": str(layout.state / "kubelet" / "volumeplugins"),
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,  # 100 is off: a shared disk that is full would cost us the 6 GB image.
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
    }


def kubelet_arguments(layout: Layout) -> list[str]:
    """Return the kubelet's command line: what its configuration file has no field for."""
    return [
        "kubelet",
        f"--config={layout.state / 'kubelet.json'}",
        f"--kubeconfig={layout.state / 'kubeconfigs' / KUBELET.name}",
        f"--root-dir={layout.state / 'kubelet'}",
        f"--cert-dir={layout.state / 'kubelet' / 'pki'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy_config(layout: Layout) -> Table:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(layout.state / "kubeconfigs" / PROXY.name)},
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0},  # 0 leaves the machine's own limit alone.
        "iptables": {"localhostNodePorts": False},
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
    }


def corefile(layout: Layout, upstream: Path = Path("/etc/resolv.conf")) -> str:
    """Return CoreDNS's configuration; names outside the cluster go to the machine's own resolver, if it has one."""
    has_upstream = upstream.is_file() and "nameserver" in upstream.read_text(encoding="utf-8", errors="replace")
    return "\n".join(
        [
            f".:{DNS_PORT} {{",
            f"    bind {NODE_ADDRESS}",
            "    errors",
            "    health 127.0.0.1:8081",
            "    ready 127.0.0.1:8181",
            f"    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{",
            f"        kubeconfig {layout.state / 'kubeconfigs' / DNS.name}",
            "        ttl 5",  # Headless Services of a new gang must not be shadowed by an older answer.
            "    }",
            *([f"    forward . {upstream}"] if has_upstream else []),
            "    cache 5 {",
            "        denial 1000 1",
            "    }",
            "    loadbalance",
            "}",
            "",
        ]
    )


def write_configs(layout: Layout, binaries: Path, authority: Authority) -> dict[str, str]:
    """Write every file and return the texts by process name: a changed one restarts its process."""
    texts = {
        "containerd": containerd_config(layout, binaries),
        "kubelet": json.dumps(kubelet_config(layout, authority), indent=1),
        "kube-proxy": json.dumps(proxy_config(layout), indent=1),
        "coredns": corefile(layout),
        "cni": json.dumps(cni_config(layout), indent=1),
    }
    files = {
        "containerd": layout.state / "containerd.toml",
        "kubelet": layout.state / "kubelet.json",
        "kube-proxy": layout.state / "kube-proxy.json",
        "coredns": layout.state / "Corefile",
        "cni": layout.state / "cni" / "10-hatchery.conflist",
    }
    for name, file in files.items():
        write_if_changed(file, texts[name])
    layout.containerd_socket.parent.mkdir(parents=True, exist_ok=True)
    return texts
