"""Why forecasts are what they are, and why they are not what they were."""
