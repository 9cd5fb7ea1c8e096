"""Overrides and whole placements for property tests: good ones, and junk made of the words an attacker would try."""

from typing import Any

from hypothesis import strategies as st

from hatchery_api.pod_overrides import ALLOWED_ANNOTATIONS

Object = dict[str, Any]

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
QUANTITIES = st.sampled_from([1, "500m", "64Mi", "2Gi"])


def _one_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Object]:
    return st.one_of(*(st.fixed_dictionaries({name: value}) for name, value in fields.items()))


def _merged(*parts: st.SearchStrategy[Object]) -> st.SearchStrategy[Object]:
    return st.tuples(*parts).map(lambda found: {k: v for part in found for k, v in part.items()})


_KEY = st.fixed_dictionaries({"name": NAMES, "key": NAMES})
_ENV = _merged(
    st.fixed_dictionaries({"name": st.from_regex(r"MY_[A-Z0-9_]{1,8}", fullmatch=True)}),
    _one_of(
        {
            "value": st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
            "valueFrom": _one_of({"secretKeyRef": _KEY, "configMapKeyRef": _KEY}),
        }
    ),
)
_VOLUME = _merged(
    st.fixed_dictionaries(
        {"name": NAMES, "mountPath": NAMES.map("/mnt/{}".format)}, optional={"readOnly": st.booleans()}
    ),
    _one_of(
        {
            "configMap": st.fixed_dictionaries({"name": NAMES}),
            "secret": st.fixed_dictionaries({"secretName": NAMES}),
            "persistentVolumeClaim": st.fixed_dictionaries({"claimName": NAMES}),
            "emptyDir": st.fixed_dictionaries(
                {}, optional={"medium": st.sampled_from(["", "Memory"]), "sizeLimit": QUANTITIES}
            ),
        }
    ),
)
_CLAIM = _merged(
    st.fixed_dictionaries({"name": NAMES}), _one_of({"resourceClaimName": NAMES, "resourceClaimTemplateName": NAMES})
)
_SPREAD = st.just(
    {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }
)


def _distinct(items: st.SearchStrategy[Object], *keys: str) -> st.SearchStrategy[list[Object]]:
    return st.lists(items, max_size=3, unique_by=tuple((lambda one, key=key: one[key]) for key in keys))


GOOD_OVERRIDES: st.SearchStrategy[Object] = st.fixed_dictionaries(
    {},
    optional={
        "env": _distinct(_ENV, "name"),
        "volumes": _distinct(_VOLUME, "name", "mountPath"),
        "resourceClaims": _distinct(_CLAIM, "name"),
        "labels": st.dictionaries(NAMES.map("example.com/{}".format), NAMES, max_size=3),
        "annotations": st.dictionaries(st.sampled_from(ALLOWED_ANNOTATIONS), NAMES, max_size=2),
        "imagePullSecrets": _distinct(st.fixed_dictionaries({"name": NAMES}), "name"),
        "schedulerName": NAMES,
        "topologySpreadConstraints": st.lists(_SPREAD, max_size=1),
        "shmSize": QUANTITIES,
    },
)
"""Overrides that are accepted."""

GOOD_PLACEMENTS: st.SearchStrategy[Object] = st.fixed_dictionaries(
    {"podOverrides": GOOD_OVERRIDES},
    optional={
        "nodeSelector": st.dictionaries(NAMES, NAMES, max_size=2),
        "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
        "affinity": st.just({"podAntiAffinity": {}}),
        "resources": st.sampled_from([{"limits": {"nvidia.com/gpu": 1}}, {"requests": {"cpu": "1"}}, {}]),
        "runtimeClassName": NAMES,
        "queueName": NAMES,
    },
)
"""Placements that are accepted."""

_WORDS = (
    *(
        "hostPath",
        "path",
        "type",
        "nfs",
        "csi",
        "flexVolume",
        "ephemeral",
        "projected",
        "sources",
        "serviceAccountToken",
    ),
    *("securityContext", "privileged", "allowPrivilegeEscalation", "capabilities", "add", "drop", "procMount"),
    *("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostPort", "ports", "hostAliases", "shareProcessNamespace"),
    *("serviceAccountName", "serviceAccount", "automountServiceAccountToken", "runAsUser", "runAsNonRoot", "fsGroup"),
    *("seccompProfile", "appArmorProfile", "seLinuxOptions", "windowsOptions", "sysctls", "readOnlyRootFilesystem"),
    *("containers", "initContainers", "ephemeralContainers", "command", "args", "image", "lifecycle", "envFrom"),
    *("env", "name", "value", "valueFrom", "fieldRef", "secretKeyRef", "volumes", "mountPath", "subPath", "configMap"),
    *("secret", "secretName", "emptyDir", "medium", "labels", "annotations", "resourceClaims", "claims", "devicePath"),
    *("volumeMounts", "mountPropagation", "volumeDevices", "nodeName", "tolerations", "priority", "overhead", "spec"),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 10**12, 0.5]),
    st.sampled_from(
        [
            *("/", "/etc", "/dev/kmem", "/var/run/docker.sock", "/mnt/../proc", "/mnt//x", "/claims/other", "/tmp"),
            *("SYS_ADMIN", "ALL", "Unconfined", "Localhost", "Bidirectional", "root", "admin", "default", "x"),
            *("HF_TOKEN", "HATCHERY_NODES", "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "A=B"),
            *("kueue.x-k8s.io/queue-name", "hatchery.dev/uid", "cdi.k8s.io/gpu", "io.kubernetes.cri-o.Devices"),
        ]
    ),
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)
"""Anything, in the words of the pod API."""

_PLACES = (
    *("env", "volumes", "resourceClaims", "labels", "annotations", "imagePullSecrets", "schedulerName"),
    *("topologySpreadConstraints", "shmSize", *_WORDS),
)
JUNK_OVERRIDES: st.SearchStrategy[Any] = JUNK | st.dictionaries(
    st.sampled_from(_PLACES), JUNK | st.lists(JUNK), max_size=3
)
"""Overrides that are probably refused, and must be harmless when they are not."""

JUNK_PLACEMENTS: st.SearchStrategy[Object] = _merged(
    GOOD_PLACEMENTS,
    st.dictionaries(
        st.sampled_from(
            [
                *("affinity", "nodeSelector", "tolerations", "runtimeClassName", "priorityClassName", "resources"),
                *("securityContext", "hostNetwork", "serviceAccountName"),
            ]
        ),
        JUNK,
        max_size=2,
    ),
    st.fixed_dictionaries({}, optional={"podOverrides": JUNK_OVERRIDES}),
)
"""Placements with junk anywhere."""
