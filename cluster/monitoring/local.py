"""Prometheus against the local stack: `python -m cluster.monitoring.local` (`make monitor`), until Ctrl-C.

It scrapes every node of the stack's own Ray, evaluates the rules of the chart and keeps its data in the state folder.
A Ray that is started again is found by itself.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from assistant.errors import ConfigurationError
from assistant.settings import load_settings
from cluster.files import private_folder
from cluster.layout import ROOT, Layout
from cluster.monitoring import programs
from cluster.ports import PortBook

TEMPLATE = Path(__file__).with_name("prometheus.yml")
RULES = ROOT / "kuberay" / "chart" / "files" / "rules" / "*.yaml"
DISCOVERY = "prom_metrics_service_discovery.json"
"""What Ray writes into its folder, and renews, for Prometheus."""
DASHBOARD_PORTS = (44217, 44227)
"""Of Ray's autoscaler and of its dashboard."""
PORT = 9090
RETENTION = "30d"


def discovery_file(layout: Layout) -> Path:
    return layout.ray_temp / DISCOVERY


def configuration(template: Mapping[str, Any], discovery: Path, port: int) -> dict[str, Any]:
    """The configuration for compose, with the targets and the rules of this machine."""
    jobs = []
    for job in template["scrape_configs"]:
        kept = {key: value for key, value in job.items() if key != "static_configs"}
        if job["job_name"] == "ray":
            relabel: list[dict[str, Any]] = [
                # Ray announces these two under the node's address; the local stack binds them to loopback.
                {
                    "source_labels": ["__address__"],
                    "regex": f".*:({'|'.join(map(str, DASHBOARD_PORTS))})",
                    "target_label": "__address__",
                    "replacement": "127.0.0.1:$1",
                },
                # The file brings a label of its own; the alerts know this one.
                {"target_label": "job", "replacement": job["job_name"]},
            ]
            own: dict[str, Any] = {
                "file_sd_configs": [{"files": [str(discovery)]}],
                "relabel_configs": relabel,
            }
        else:
            own = {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        jobs.append(kept | own)
    return {**template, "rule_files": [str(RULES)], "scrape_configs": jobs}


def command(program: Path, config: Path, data: Path, port: int) -> list[str]:
    return [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, help=f"default {PORT}, or a free one")
    arguments = parser.parse_args()
    try:
        program = programs.need("prometheus")
        layout = Layout(load_settings().home)
        discovery = discovery_file(layout)
        if not discovery.is_file():
            raise ConfigurationError(
                f"The local stack of {layout.home} does not run: {discovery} is not there.",
                hint="Start it with `make local-up`.",
            )
    except (programs.NotAvailable, ConfigurationError) as error:
        raise SystemExit(str(error)) from None
    folder = private_folder(layout.home / "monitoring")
    port = arguments.port or PortBook(layout.ports).port("prometheus", PORT)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(configuration(yaml.safe_load(TEMPLATE.read_text()), discovery, port)))
    sys.stdout.write(f"Prometheus: http://127.0.0.1:{port}  (Ctrl-C ends it)\n")
    sys.stdout.flush()
    os.execv(program, command(program, config, folder / "data", port))  # noqa: S606


if __name__ == "__main__":
    main()
