-- staged.scenario of online_ads: the placements that exist. Any other stops the run, so that a typing error in the
-- source does not become a scenario; a new placement is added here.
select scenario_id from values ('abc'), ('def'), ('ghi'), ('jkl'), ('mno') as placement (scenario_id)
