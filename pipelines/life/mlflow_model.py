"""MLflow's way to the model: forecasts for sequences, as a pyfunc made from code.

``mlflow.pyfunc.load_model("models:/m2m_<data set>@champion").predict(rows, params={"as_of": "2020-06-29"})``
gives one row per advertiser, scenario and task, and per horizon where there are several. The stages do not go this way:
they open the folder with ``m2m_model.forecasts.forecaster``.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa

from m2m_model.data.panel import Panel
from m2m_model.forecasts.forecaster import Forecaster


class M2M(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Loads weights.safetensors and config.json once; keeps no other state."""

    def load_context(self, context: Any) -> None:
        self.forecaster = Forecaster.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        spec = self.forecaster.spec
        rows = model_input.assign(registered_on=pd.to_datetime(model_input["registered_on"]).dt.date)
        as_of = date.fromisoformat((params or {})["as_of"])
        panel = Panel.from_sequences(pa.Table.from_pandas(rows, preserve_index=False), spec, as_of, spec.lookback_days)
        forecasts = self.forecaster.predict(panel, as_of, all_series=True).to_table(spec)
        return forecasts.drop_columns(["horizon_days"] if len(spec.horizons_days) == 1 else []).to_pandas()


mlflow.models.set_model(M2M())
