"""A meter that remembers, for tests that ask what was measured."""

from assistant.telemetry import NullMeter, check_metric


class RecordingMeter(NullMeter):
    """`values`: by name and label values, the sum of a counter, the last value of a gauge, the count of a histogram."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        key = self._key(name, labels)
        self.values[key] = self.values.get(key, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        key = self._key(name, labels)
        self.values[key] = self.values.get(key, 0.0) + 1

    def set(self, name: str, value: float, **labels: str) -> None:
        self.values[self._key(name, labels)] = value

    def named(self, name: str) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in self.values.items() if key[0] == name}

    @staticmethod
    def _key(name: str, labels: dict[str, str]) -> tuple[str, ...]:
        return (name, *(labels[label] for label in check_metric(name, labels).labels))
