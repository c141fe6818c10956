"""What the model is judged beside and what never serves. An artifact of its own: no model needs it to load or to score.

No other room imports from here, and ``boosted`` alone imports LightGBM.
"""

NAMES = ("lightgbm_l1", "lightgbm_tweedie")  # their forecasts are points, without a distribution
