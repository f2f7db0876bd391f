"""The part of Kubernetes' and KubeRay's v1 objects that our manifests use; any other key is refused.

Written after the API references: kubernetes.io/docs/reference (Pod, PersistentVolumeClaim, ConfigMap) and
ray-project.github.io/kuberay/reference/api (RayCluster, RayJob).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SUFFIX = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str) -> float:
    """CPUs, bytes or devices of a quantity. Raises ValueError where Kubernetes would."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]*)", quantity)
    if parts is None or parts[2] not in SUFFIX:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(parts[1]) * SUFFIX[parts[2]]


def quantity(text: str) -> str:
    """The same, if it is one."""
    amount(text)
    return text


Quantity = Annotated[str, AfterValidator(quantity)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=41)]  # KubeRay's limit for jobs
PortName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=15)]
Path = Annotated[str, Field(pattern="^/")]


class Strict(BaseModel):
    """No other keys, and no string where a number belongs, or the other way."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name


class Capabilities(Strict):
    drop: list[str]


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]


class SecurityContext(Strict):
    runAsNonRoot: bool
    runAsUser: Annotated[int, Field(gt=0)]
    allowPrivilegeEscalation: bool
    capabilities: Capabilities
    seccompProfile: SeccompProfile


class PodSecurityContext(Strict):
    fsGroup: int


class Resources(Strict):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class Port(Strict):
    name: PortName
    containerPort: Annotated[int, Field(gt=0, lt=65536)]


class Mount(Strict):
    name: Name
    mountPath: Path
    readOnly: bool = False


class Container(Strict):
    name: Name
    image: str
    securityContext: SecurityContext
    resources: Resources
    ports: list[Port] = []
    volumeMounts: list[Mount] = []


class ClaimSource(Strict):
    claimName: Name


class ConfigMapSource(Strict):
    name: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: ClaimSource | None = None
    configMap: ConfigMapSource | None = None


class PodSpec(Strict):
    containers: list[Container]
    volumes: list[Volume] = []
    securityContext: PodSecurityContext | None = None
    restartPolicy: Literal["Always", "OnFailure", "Never"] | None = None


class PodTemplate(Strict):
    spec: PodSpec


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]
    secretName: Name


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int
    securityContext: SecurityContext
    resources: Resources


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Name
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: PodTemplate


class RayClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayJobSpec(Strict):
    entrypoint: str
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    submitterPodTemplate: PodTemplate
    rayClusterSpec: RayClusterSpec


class ClaimResources(Strict):
    requests: dict[Literal["storage"], Quantity]


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]]
    resources: ClaimResources


class Claim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


class ConfigMap(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[str, str]


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


AnyObject = Annotated[Claim | ConfigMap | RayCluster | RayJob, Field(discriminator="kind")]
