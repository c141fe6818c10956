-- Budgets as they were planned at the end of each day, for the days after it: the files hold them so.
select ds, advertiser_id, scenario_id, for_day, planned_budget
from plans
where ds between :from_ds and :to_ds
