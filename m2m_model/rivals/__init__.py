"""What the model is judged beside and what never serves. An artifact of its own: no model needs it to load or to score.

No other room imports from here, and what a rival is made with (LightGBM) is imported when it is fitted or opened.
"""

# What each module makes. Another rival is a module with ``fit`` and ``opened`` (see ``artifact``), and a line here.
MODULES = {"m2m_model.rivals.boosted": ("lightgbm_l1", "lightgbm_tweedie")}
NAMES = tuple(name for names in MODULES.values() for name in names)  # their forecasts are points, no distributions
