"""The way to a total, day by day."""
