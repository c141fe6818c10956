"""M2M, from sequence rows to forecasts. Rooms import one way: data, network, forecasts, training; rivals stand beside.

Where to start: ``network/model.py`` is the paper; ``training/loop.py`` (``train_rank``) makes a model folder;
``forecasts/forecaster.py`` (``Forecaster``) opens it and forecasts a ``data.panel.Panel``.
"""
