-- marts.churn_risk: from the forecasts of one as-of date, how likely each advertiser is to leave each scenario, and what
-- that puts at risk, over each horizon. Without a task that adds up money, :money_task is null and so is the value. The workers run it, on
-- the forecasts of a bucket that they have just made.
select
    ds,
    bucket,
    advertiser_id,
    scenario_id,
    horizon_days,
    max(p_zero) filter (where task = :active_task) as probability,
    max(p_zero) filter (where task = :active_task) * max(mean) filter (where task = :money_task) as value_at_risk
from forecast_daily
group by ds, bucket, advertiser_id, scenario_id, horizon_days
