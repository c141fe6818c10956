"""From the network and the simple forecasts to what is published, and how it is judged."""
