-- staged.scenario: the scenarios that exist at the end of the as-of day.
select
    0 as bucket,
    :ds as ds,
    *
from dataset_scenario
