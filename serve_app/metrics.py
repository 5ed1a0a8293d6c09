"""The product's metrics as Ray metrics: they stand at the node's Prometheus endpoint, prefixed `ray_`.

There is no endpoint of our own: Ray exposes one per node (`--metrics-export-port`), unauthenticated, so the
network has to guard it.
"""

from typing import Any, TypeAlias

from ray.util.metrics import Counter, Gauge, Histogram

from assistant.telemetry import METRICS, check_metric

Metric: TypeAlias = Any


class RayMeter:
    """A Meter. Metrics are made at their first use, so that only what a replica records is exported by it."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        check_metric(name, labels)
        self._metric(name, Counter).inc(value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        check_metric(name, labels)
        # Ray's histograms refuse zero, which a stage on a fast machine can round to.
        self._metric(name, Histogram).observe(max(value, 1e-9), labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        check_metric(name, labels)
        self._metric(name, Gauge).set(value, labels)

    def _metric(self, name: str, kind: type[Metric]) -> Metric:
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = self._make(name)
        if not isinstance(metric, kind):
            raise TypeError(f"{name} is a {METRICS[name].kind}")
        return metric

    @staticmethod
    def _make(name: str) -> Metric:
        spec = METRICS[name]
        match spec.kind:
            case "counter":
                return Counter(name, spec.description, spec.labels)
            case "gauge":
                return Gauge(name, spec.description, spec.labels)
            case _:
                boundaries = [b for b in spec.buckets if b > 0]
                return Histogram(name, spec.description, boundaries, spec.labels)
