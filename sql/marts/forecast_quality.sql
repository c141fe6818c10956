-- marts.forecast_quality: the forecasts of one as-of date against what happened, per method x scenario x task x horizon,
-- with * for all methods or scenarios together; horizons above :horizon_days are left out. Blends that differ in the weight alone are one method. The formulas are those of m2m_model/forecasts/metrics.py; a test holds them equal.
with judged as (
    select
        split_part(f.method, '@', 1) as method,
        f.scenario_id,
        f.task,
        f.horizon_days,
        f.point,
        f.median,
        f.p05,
        f.p25,
        f.p75,
        f.p95,
        -- A series without a row in the whole horizon did nothing.
        coalesce(a.actual, 0D) as actual
    from forecast_daily as f
    left join actual_total as a
        on f.advertiser_id = a.advertiser_id
        and f.scenario_id = a.scenario_id
        and f.task = a.task
        and f.horizon_days = a.horizon_days
    where f.ds = :as_of and f.horizon_days <= :horizon_days
),

errors as (
    select
        *,
        abs(actual - point) as error,
        if(actual = 0 and point = 0, 0D, 2 * abs(actual - point) / (abs(actual) + abs(point))) as smape,
        (
            greatest(0.05D * (actual - p05), -0.95D * (actual - p05))
            + greatest(0.25D * (actual - p25), -0.75D * (actual - p25))
            + greatest(0.5D * (actual - median), -0.5D * (actual - median))
            + greatest(0.75D * (actual - p75), -0.25D * (actual - p75))
            + greatest(0.95D * (actual - p95), -0.05D * (actual - p95))
        ) / 5 as pinball
    from judged
)

select
    :as_of as ds,
    date_add(:as_of, horizon_days) as matured_on,
    if(grouping(method) = 1, '*', method) as method,
    if(grouping(scenario_id) = 1, '*', scenario_id) as scenario_id,
    task,
    horizon_days,
    count(*) as n,
    if(sum(error) = 0, 0D, try_divide(sum(error), sum(actual))) as nmae,
    avg(smape) as smape,
    avg(pinball) as pinball,
    avg(if(actual between p25 and p75, 1D, 0D)) as coverage_50,
    avg(if(actual between p05 and p95, 1D, 0D)) as coverage_90,
    if(sum(point) = 0 and sum(actual) = 0, 0D, try_divide(sum(point) - sum(actual), sum(actual))) as bias
from errors
group by grouping sets (
    (method, scenario_id, task, horizon_days),
    (method, task, horizon_days),
    (scenario_id, task, horizon_days),
    (task, horizon_days)
)
