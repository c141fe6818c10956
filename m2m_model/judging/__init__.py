"""How forecasts are judged beyond their error: what they are worth, and whether one is better by more than chance."""
