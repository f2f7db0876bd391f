"""compose.yaml: valid by the specification, and of one mind with the script, the package and Ray."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

from study import __version__

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "docker" / "entrypoint.sh").read_text()
PORTS = {name: int(port) for name, port in re.findall(r"^(\w+)_PORT=(\d+)$", SCRIPT, re.MULTILINE)}
NOT_RAYS = {"PATH", "OMP_NUM_THREADS", "PYTHONUNBUFFERED", "NVIDIA_DRIVER_CAPABILITIES"}


def check(parsed: dict[str, Any]) -> None:
    """Raises ValueError where the specification does not know it."""
    PyCompose.from_yaml(yaml.safe_dump(parsed)).validate()


def test_it_is_valid(compose: dict[str, Any]) -> None:
    check(compose)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("worker", "depend_on", ["head"]),
        ("worker", "depends_on", {"head": {"condition": "healthy"}}),
        ("worker", "secrets", ["token"]),
        ("head", "networks", ["elsewhere"]),
    ],
)
def test_mistakes_are_seen(compose: dict[str, Any], section: str, key: str, value: object) -> None:
    services = {**compose["services"], section: {**compose["services"][section], key: value}}
    with pytest.raises(ValueError, match=section):
        check({**compose, "services": services})


def test_a_head_two_workers_and_those_who_watch(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"head", "worker", "prometheus", "grafana"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service, name


def test_images_are_pinned_and_ours_is_this_version(compose: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert images.pop("head") == images.pop("worker") == f"study:{__version__}"
    for image in images.values():
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", image), image


def test_only_this_machine_gets_in(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published
    for port in published:
        assert port.startswith("127.0.0.1:"), port


def test_who_waits_for_health_waits_for_one_that_tells_it(
    compose: dict[str, Any], dockerfile: DockerfileParser
) -> None:
    told = {name for name, service in compose["services"].items() if "healthcheck" in service}
    told |= {"head", "worker"} & {"head" for line in dockerfile.structure if line["instruction"] == "HEALTHCHECK"}
    for service in compose["services"].values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == "service_healthy"
            assert name in told


def test_ports_are_those_of_the_script(compose: dict[str, Any], dockerfile: DockerfileParser) -> None:
    assert compose["services"]["worker"]["command"] == ["worker", f"head:{PORTS['GCS']}"]
    assert compose["services"]["head"]["ports"] == [f"127.0.0.1:{PORTS['DASHBOARD']}:{PORTS['DASHBOARD']}"]
    (exposed,) = [line["value"].split() for line in dockerfile.structure if line["instruction"] == "EXPOSE"]
    assert set(map(int, exposed)) == {PORTS["GCS"], PORTS["METRICS"], PORTS["DASHBOARD"]}
    for service in ("prometheus", "grafana"):
        (port,) = compose["services"][service]["ports"]
        inside = port.rpartition(":")[2]
        assert f":{inside}/" in compose["services"][service]["healthcheck"]["test"][-1]
    environment = compose["services"]["head"]["environment"]
    assert environment["RAY_GRAFANA_HOST"].endswith(f"grafana:{port.rpartition(':')[2]}")
    assert environment["RAY_GRAFANA_IFRAME_HOST"] == f"http://{port.rpartition(':')[0]}"


def test_environment_variables_are_known(compose: dict[str, Any], dockerfile: DockerfileParser) -> None:
    names = {name for service in ("head", "worker") for name in compose["services"][service]["environment"]}
    names |= set(re.findall(r"\bRAY_\w+", SCRIPT)) - {"RAY_START"}
    for line in dockerfile.structure:
        if line["instruction"] == "ENV":
            names |= {part.partition("=")[0] for part in line["value"].split()}
    package = Path(ray.__file__).parent
    sources = ["_raylet.so", "_private/ray_constants.py", "_common/usage/usage_constants.py"]
    sources += ["dashboard/modules/metrics/metrics_head.py"]
    known = [(package / name).read_bytes() for name in sources]
    assert len(names - NOT_RAYS) >= 5
    for name in names - NOT_RAYS:
        assert any(name.encode() in source for source in known), name


def test_the_object_store_fits_into_shared_memory(compose: dict[str, Any]) -> None:
    for name in ("head", "worker"):
        memory_gb, shared_gb = (
            float(compose["services"][name][key].removesuffix("gb")) for key in ("mem_limit", "shm_size")
        )
        assert shared_gb > DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory_gb


def test_the_secret_is_where_the_nodes_look_for_it(compose: dict[str, Any]) -> None:
    assert compose["secrets"] == {"ray_token": {"environment": "RAY_AUTH_TOKEN"}}
    for name in ("head", "worker"):
        service = compose["services"][name]
        assert service["secrets"] == ["ray_token"]
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"


def test_volumes_of_the_nodes_are_the_users_own(compose: dict[str, Any], dockerfile: DockerfileParser) -> None:
    """A new volume has the owner of the folder in the image; a folder that the image lacks would be root's."""
    (owned,) = re.findall(r"install --directory --owner=study ((?: ?/[\w/]+)+)", dockerfile.content)
    mounted = {mount.split(":")[1] for name in ("head", "worker") for mount in compose["services"][name]["volumes"]}
    assert mounted == set(owned.split())


def test_what_is_mounted_exists(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    binds = [mount for mount in mounts if mount.startswith(".")]
    assert {mount.split(":")[0] for mount in mounts if mount not in binds} == set(compose["volumes"])
    assert binds
    for mount in binds:
        path, _, mode = mount.split(":")
        assert mode == "ro"
        assert (ROOT / "docker" / path).exists(), path


def test_prometheus_finds_rays_targets_and_our_rules(compose: dict[str, Any]) -> None:
    mounts = dict(mount.split(":")[1::-1] for mount in compose["services"]["prometheus"]["volumes"])
    config = yaml.safe_load((ROOT / "dashboards" / "prometheus.yml").read_text())
    files = [name for job in config["scrape_configs"] for way in job["file_sd_configs"] for name in way["files"]]
    assert files == ["/tmp/ray/prom_metrics_service_discovery.json"]
    assert mounts["/tmp/ray"] == "ray"
    assert "ray:/tmp/ray" in compose["services"]["head"]["volumes"]
    for name in config["rule_files"]:
        assert Path("/etc/prometheus") / name in {Path(target) for target in mounts}


def test_grafana_finds_prometheus_and_every_dashboard(compose: dict[str, Any]) -> None:
    provisioning = ROOT / "dashboards" / "grafana" / "provisioning"
    for path in (provisioning / "datasources").glob("*.yml"):
        for source in yaml.safe_load(path.read_text())["datasources"]:
            assert source["url"] == compose["services"]["head"]["environment"]["RAY_PROMETHEUS_HOST"]
    targets = [Path(mount.split(":")[1]) for mount in compose["services"]["grafana"]["volumes"]]
    folders = [
        Path(provider["options"]["path"])
        for path in (provisioning / "dashboards").glob("*.yml")
        for provider in yaml.safe_load(path.read_text())["providers"]
    ]
    assert folders
    for folder in folders:
        assert any(target == folder or target in folder.parents or folder == target.parent for target in targets), (
            folder
        )


def test_ray_is_the_pinned_one() -> None:
    assert f"ray=={version('ray')}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert f'"ray[tune]=={version("ray")}"' in (ROOT / "pyproject.toml").read_text()
