"""Sequence rows as panels of series and days; who is served by what; what the network reads."""
