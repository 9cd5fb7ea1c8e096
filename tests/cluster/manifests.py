"""Objects that every cluster needs before a user's first: DNS and storage."""

from tests.cluster.layout import DNS_PORT, DNS_SERVICE, NODE_ADDRESS, NODE_NAME, Layout
from tests.cluster.node import DNS

STORAGE_CLASS = "hatchery-local"
VOLUME_COUNT = 40
"""Claims that can exist at one time; a released volume is free again after `recycle`."""
VOLUME_CAPACITY = "100Gi"
"""Nominal: any request up to it binds. Folders have no quota."""

Object = dict[str, object]


def dns_objects() -> list[Object]:
    """Return the Service kube-dns, whose one endpoint is the CoreDNS process, and what CoreDNS may read."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    labels = {"k8s-app": "kube-dns"}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-host",
                "namespace": "kube-system",
                "labels": {**labels, "kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{**port, "port": DNS_PORT} for port in ports],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS.common_name},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS.common_name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": DNS.common_name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": DNS.common_name}],
        },
    ]


def storage_class() -> Object:
    """Return the default StorageClass: binding is immediate, since there is one node to be on."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Retain",
    }


def volume_name(number: int) -> str:
    """Return the name of one PersistentVolume and of its folder."""
    return f"hatchery-local-{number:02d}"


def persistent_volume(layout: Layout, name: str) -> Object:
    """Return one `local` volume; all pods are on its node, so it can be shared for writing."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": VOLUME_CAPACITY},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": str(layout.volumes / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }
