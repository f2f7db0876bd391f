"""The dashboard for Grafana, the scrape configuration and the alert rules for Prometheus, from the list of metrics."""

from __future__ import annotations

import json
from typing import Any

import yaml

from study.cluster.metrics.alerts import ALERTS
from study.cluster.metrics.definitions import filtered
from study.cluster.metrics.panels import PANELS, Panel

# The version of Ray's own dashboards, so that one Grafana reads both; newer Grafanas migrate it.
SCHEMA_VERSION = 27
ROW_WIDTH, PANEL_HEIGHT = 24, 8
GRAFANA_UNITS = {"fraction": "percentunit", "ratio": "percentunit", "USD": "currencyUSD", "s": "s"}
GENERATED = "# Written by `study dashboards build`; a test fails when it differs.\n"
_FILTERS = 'SessionName=~"$SessionName",ray_io_cluster=~"$Cluster",study=~"$study"'


def dashboard_json() -> str:
    """Return the dashboard as JSON for Grafana."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > ROW_WIDTH:
            x, y = 0, y + PANEL_HEIGHT
        panels.append(_panel(panel, number, x, y))
        x += panel.width
    board = {
        "uid": "study",
        "title": "Studies",
        "tags": ["ray", "study"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "graphTooltip": 1,
        "templating": {"list": _variables()},
        "panels": panels,
    }
    return json.dumps(board, indent=2) + "\n"


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    unit = GRAFANA_UNITS.get(panel.unit)
    defaults: dict[str, Any] = {"unit": unit or "short", "min": 0}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 0,
            "stacking": stacking,
            "axisLabel": "" if unit else panel.unit,
        }
        options = {"legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"]}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": "${datasource}",
        "gridPos": {"h": PANEL_HEIGHT, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "expr": filtered(query, _FILTERS), "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def _variables() -> list[dict[str, Any]]:
    """Return the choices at the top of the dashboard: data source, session, cluster and study."""
    sign = "ray_study_heartbeat_timestamp_seconds"
    queries = {
        "SessionName": (f"label_values({sign}, SessionName)", ".*", False),
        "Cluster": (f"label_values({sign}, ray_io_cluster)", ".*", False),
        "study": (f'label_values({sign}{{SessionName=~"$SessionName"}}, study)', ".+", True),
    }
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2, "refresh": 1}
    return [source] + [
        {
            "name": name,
            "type": "query",
            "datasource": "${datasource}",
            "definition": query,
            "query": {"query": query, "refId": "StandardVariableQuery"},
            "refresh": 2,
            "sort": 2,
            "includeAll": True,
            "allValue": every,
            "multi": multi,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }
        for name, (query, every, multi) in queries.items()
    ]


def alerts_yaml() -> str:
    """Return the alert rules as YAML for Prometheus."""
    rules = [
        {
            "alert": alert.name,
            "expr": filtered(alert.expr, ""),
            "for": alert.hold,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "description": alert.description},
        }
        for alert in ALERTS
    ]
    return _yaml({"groups": [{"name": "study", "interval": "10s", "rules": rules}]})


def prometheus_yaml() -> str:
    """Return the scrape configuration of Prometheus, which names the file of rules beside it."""
    return _yaml(
        {
            # A driver that has ended leaves its last values for 20 s: they must be scraped once.
            "global": {"scrape_interval": "10s", "evaluation_interval": "10s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {
                    "job_name": "ray",
                    "file_sd_configs": [
                        {"files": ["/tmp/ray/prom_metrics_service_discovery.json"], "refresh_interval": "10s"}
                    ],
                }
            ],
        }
    )


def provisioning() -> dict[str, str]:
    """Return Grafana's provisioning files, by path under dashboards/grafana/provisioning/."""
    return {
        "datasources/prometheus.yml": _yaml(
            {
                "apiVersion": 1,
                "datasources": [
                    {
                        "name": "Prometheus",
                        "uid": "prometheus",
                        "type": "prometheus",
                        "access": "proxy",
                        "url": "http://prometheus:9090",
                        "isDefault": True,
                        "jsonData": {"timeInterval": "10s"},
                    }
                ],
            }
        ),
        "dashboards/study.yml": _yaml(
            {
                "apiVersion": 1,
                "providers": [
                    {"name": "study", "type": "file", "options": {"path": "/etc/grafana/dashboards"}},
                    {
                        "name": "Ray",
                        "folder": "Ray",
                        "type": "file",
                        "options": {"path": "/tmp/ray/session_latest/metrics/grafana/dashboards"},
                    },
                ],
            }
        ),
    }


def _yaml(data: dict[str, Any]) -> str:
    return GENERATED + yaml.safe_dump(data, sort_keys=False, width=1000)


def readme() -> str:
    """Return the README of the folder."""
    alerts = "\n".join(f"| {alert.name} | {alert.severity} | `{filtered(alert.expr, '')}` |" for alert in ALERTS)
    return f"""<!-- Written by `study dashboards build`; a test fails when it differs. -->

# Dashboards

| file | for |
| ---- | --- |
| `grafana/study.json` | Grafana: import it, or provision it |
| `grafana/provisioning/` | Grafana: looks for this dashboard in `/etc/grafana/dashboards`, Ray's own in `/tmp/ray` |
| `prometheus.yml` | Prometheus, where Ray's head writes its service discovery into `/tmp/ray` |
| `alerts.yml` | Prometheus, beside `prometheus.yml` |

Where Ray's own dashboards are provisioned from a folder already, put this one beside them; Ray does not overwrite it:

```sh
study dashboards build --out "$RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"
```

The metrics are listed in `docs/monitoring.md`, the alerts are:

| alert | severity | fires on |
| ----- | -------- | -------- |
{alerts}
"""


def files() -> dict[str, str]:
    """Return every file that `study dashboards build` writes, by path."""
    return {
        "README.md": readme(),
        "prometheus.yml": prometheus_yaml(),
        "alerts.yml": alerts_yaml(),
        "grafana/study.json": dashboard_json(),
    } | {f"grafana/provisioning/{path}": text for path, text in provisioning().items()}
