"""The names of who makes a forecast: what the column ``method`` of every published row says."""

from __future__ import annotations

M2M, COLD_START, SILENT = "m2m", "cold_start", "silent"  # the network alone, and the two rules


def own_method(simple: str) -> str:
    """A simple forecast alone: a rule by its name, a baseline as ``baseline:NAME``."""
    return simple if simple in (COLD_START, SILENT) else f"baseline:{simple}"


def blended(anchor: str, network: float) -> str:
    """Both: ``blend:ANCHOR@WEIGHT``, the weight being the network's and the rest the anchor's."""
    return f"blend:{anchor}@{network:g}"


def without_weight(method: str) -> str:
    """For tables by method: rows that differ in the weight alone are together."""
    return method.partition("@")[0]
