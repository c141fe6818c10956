"""Totals of many series: what they share, samples of them, sums."""
