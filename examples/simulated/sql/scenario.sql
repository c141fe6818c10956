-- staged.scenario of simulated: the scenarios that exist; any other stops the run.
select
    scenario_id,
    placement,
    format
from place
