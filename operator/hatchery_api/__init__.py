"""The API: pydantic models of what users write, and of what operator and pods tell each other.

Operator, CLI and jobs share this package; it imports none of them, nor kopf, torch or a Kubernetes client.

- `resources`: spec and result of each kind, imported as `hatchery_api.resources.<kind>`.
- `schema`: from the models to CRDs and reference pages.
- `kinds`: the kinds as data; everything that treats all kinds alike loops over `KINDS`.
- `placement` and `pod_overrides`: what all specs share; `status` and `conditions`: what all statuses share.
- `contract`: the pod's input, progress, report and exit code.
- `base`: the base models, scalar types and CEL rules as data; `format`: numbers and texts as people read them.

The modules of this level are imported as they stand.
"""

__version__ = "0.2.0"
"""Version of everything: the distribution, the images, and the chart."""
