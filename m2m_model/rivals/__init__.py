"""Learned baselines: what the model is judged beside, and, where validation says so, what serves in its stead.

``forecasts`` asks them as it asks the simple ones, and what they are made with (LightGBM) is imported when one is
fitted or opened: a model whose blend has none neither holds nor loads it.
"""

# What each module makes. Another rival is a module with ``fit`` and ``opened`` (see ``artifact``), and a line here.
MODULES = {"m2m_model.rivals.boosted": ("lightgbm_l1", "lightgbm_tweedie", "lightgbm_level")}
NAMES = tuple(name for names in MODULES.values() for name in names)  # judged, their forecasts are points
