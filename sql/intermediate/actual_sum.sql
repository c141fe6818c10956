-- What a task with aggregate = "sum" came to over the horizon, per advertiser and scenario. A day without a row adds nothing.
select
    advertiser_id,
    scenario_id,
    :task as task,
    :horizon_days as horizon_days,
    sum(greatest(identifier(:metric), 0D)) as actual
from performance_daily
where ds > :as_of and ds <= date_add(:as_of, :horizon_days)
group by advertiser_id, scenario_id
