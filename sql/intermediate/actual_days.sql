-- What a task with aggregate = "days" came to over the horizon, per advertiser and scenario: days with the metric above 0.
select
    advertiser_id,
    scenario_id,
    :task as task,
    :horizon_days as horizon_days,
    cast(count_if(identifier(:metric) > 0) as double) as actual
from performance_daily
where ds > :as_of and ds <= date_add(:as_of, :horizon_days)
group by advertiser_id, scenario_id
