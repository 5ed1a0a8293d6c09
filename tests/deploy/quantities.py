"""Kubernetes quantities as numbers."""

from collections.abc import Mapping
from typing import Any

UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def number(quantity: str | float) -> float:
    """Bytes or cores. Raises KeyError for a unit that Kubernetes does not know."""
    text = str(quantity)
    digits = text.rstrip("mkMGTKi")
    return float(digits) * UNITS[text[len(digits) :]]


def request(container: Mapping[str, Any], resource: str) -> float:
    return number(container["resources"]["requests"][resource])


def limit(container: Mapping[str, Any], resource: str) -> float:
    return number(container["resources"]["limits"][resource])
