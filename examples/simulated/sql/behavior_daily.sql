-- staged.behavior_daily of simulated: log-ins and top-ups have no scenario and count for all of them.
select
    ds,
    advertiser_id,
    scenario_id,
    cast(campaign_created as double) as campaign_created,
    cast(budget_raised as double) as budget_raised,
    cast(budget_cut as double) as budget_cut,
    cast(bid_changed as double) as bid_changed,
    cast(top_up as double) as top_up,
    cast(login as double) as login
from behavior
where ds between :from_ds and :to_ds
