"""The manifests: strictly read, and of one mind with the image, the package and the study they run."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from pydantic import TypeAdapter, ValidationError
from ray.scripts.scripts import start
from typer.main import get_command

from study import __version__
from study.cli.app import app
from study.config.loader import load_study
from study.planning.capacity import Node, check_capacity
from tests.docker.kube import (
    AnyObject,
    Claim,
    ConfigMap,
    Container,
    PodTemplate,
    RayCluster,
    RayClusterSpec,
    RayJob,
    amount,
)

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "docker" / "entrypoint.sh").read_text()
PORTS = {name: int(port) for name, port in re.findall(r"^(\w+)_PORT=(\d+)$", SCRIPT, re.MULTILINE)}
TEXTS = {path.stem: path.read_text() for path in sorted((ROOT / "docker" / "kuberay").glob("*.yaml"))}
FILES = pytest.mark.parametrize("file", list(TEXTS))
OBJECT: TypeAdapter[AnyObject] = TypeAdapter(AnyObject)


def objects(text: str) -> list[AnyObject]:
    """Those of a file, in order."""
    return [OBJECT.validate_python(document) for document in yaml.safe_load_all(text)]


def cluster_of(file: str) -> RayClusterSpec:
    """The Ray cluster that a file asks for."""
    last = objects(TEXTS[file])[-1]
    assert isinstance(last, RayCluster | RayJob)
    return last.spec if isinstance(last, RayCluster) else last.spec.rayClusterSpec


def templates(file: str) -> list[PodTemplate]:
    """Head's and workers'."""
    cluster = cluster_of(file)
    return [cluster.headGroupSpec.template, *(group.template for group in cluster.workerGroupSpecs)]


def containers(file: str) -> list[Container]:
    """All of our own, the submitter's too."""
    last = objects(TEXTS[file])[-1]
    more = [last.spec.submitterPodTemplate] if isinstance(last, RayJob) else []
    return [container for template in templates(file) + more for container in template.spec.containers]


def test_they_are_two() -> None:
    assert [type(objects(text)[-1]) for text in TEXTS.values()] == [RayCluster, RayJob]


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("minReplicas: 2", "minReplica: 2"),
        ("replicas: 2", 'replicas: "2"'),
        ("rayVersion: 2.60.0", "rayVersion: 2.60"),
        ('num-cpus: "0"', "num-cpus: 0"),
        ("memory: 8Gi", "memory: 8GiB"),
        ("mode: token", "mode: tokens"),
        ("runAsUser: 1000", "runAsUser: 0"),
        ("ray.io/v1", "ray.io/v1alpha1"),
    ],
)
@FILES
def test_mistakes_are_seen(file: str, now: str, then: str) -> None:
    assert now in TEXTS[file]
    with pytest.raises(ValidationError):
        objects(TEXTS[file].replace(now, then))


@FILES
def test_they_name_this_version_of_all(file: str, dockerfile: DockerfileParser) -> None:
    (user,) = [line["value"] for line in dockerfile.structure if line["instruction"] == "USER"]
    assert cluster_of(file).rayVersion == version("ray")
    for container in containers(file):
        assert container.image == f"study:{__version__}"
        assert container.securityContext.runAsUser == int(user)


@FILES
def test_requests_are_within_limits(file: str) -> None:
    for container in containers(file):
        assert {"cpu", "memory"} <= set(container.resources.limits)
        for name, asked in container.resources.requests.items():
            assert amount(asked) <= amount(container.resources.limits[name])


def test_quantities() -> None:
    assert amount("500m") == 0.5
    assert amount("4") == 4
    assert amount("1.5Gi") == 1.5 * 1024**3


@FILES
def test_what_is_mounted_exists(file: str) -> None:
    beside = {(type(thing), thing.metadata.name): thing for thing in objects(TEXTS[file])[:-1]}
    for template in templates(file):
        volumes = {volume.name: volume for volume in template.spec.volumes}
        assert {mount.name for box in template.spec.containers for mount in box.volumeMounts} == set(volumes)
        for volume in volumes.values():
            if volume.persistentVolumeClaim:
                claim = beside[Claim, volume.persistentVolumeClaim.claimName]
                assert "ReadWriteMany" in claim.spec.accessModes  # by pods of several nodes
            else:
                assert volume.configMap is not None
                assert (ConfigMap, volume.configMap.name) in beside
        assert template.spec.securityContext is not None  # else the volume is root's
        assert template.spec.securityContext.fsGroup == 1000


@FILES
def test_ports_and_options_are_known(file: str) -> None:
    cluster = cluster_of(file)
    known = {"gcs-server": PORTS["GCS"], "dashboard": PORTS["DASHBOARD"], "metrics": PORTS["METRICS"]}
    for container in containers(file):
        assert {port.name: port.containerPort for port in container.ports}.items() <= known.items()
    options = {name.removeprefix("--") for option in start.params for name in option.opts}
    for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs):
        assert set(group.rayStartParams) <= options
        assert group.rayStartParams["metrics-export-port"] == str(PORTS["METRICS"])


@FILES
def test_workers_have_bounds(file: str) -> None:
    cluster = cluster_of(file)
    for group in cluster.workerGroupSpecs:
        assert 0 < group.minReplicas <= group.replicas <= group.maxReplicas
        assert cluster.enableInTreeAutoscaling == (group.minReplicas < group.maxReplicas)


def test_the_jobs_study_fits_its_cluster(tmp_path: Path) -> None:
    config_map = next(thing for thing in objects(TEXTS["rayjob"]) if isinstance(thing, ConfigMap))
    (name,) = config_map.data
    (tmp_path / name).write_text(config_map.data[name])
    config = load_study(tmp_path / name, ()).config
    nodes = [
        Node(amount(group.template.spec.containers[0].resources.limits["cpu"]), 0)
        for group in cluster_of("rayjob").workerGroupSpecs
        for _ in range(group.minReplicas)
    ]
    check_capacity(nodes, config.hardware)


def test_the_jobs_command_is_one_of_ours_and_its_paths_are_mounted() -> None:
    config_map, _, job = objects(TEXTS["rayjob"])
    assert isinstance(config_map, ConfigMap)
    assert isinstance(job, RayJob)
    program, verb, *arguments = shlex.split(job.spec.entrypoint)
    assert program == "study"
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    given = command.make_context(verb, arguments).params
    (head,) = job.spec.rayClusterSpec.headGroupSpec.template.spec.containers
    mounted = {mount.name: Path(mount.mountPath) for mount in head.volumeMounts}
    (name,) = config_map.data
    assert Path(given["config"]) == mounted["config"] / name
    assert mounted["storage"] in given["folder"].parents
    assert given["address"] == "auto"
