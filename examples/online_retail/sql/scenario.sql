-- staged.scenario of online_retail: the markets that performance_daily.sql maps countries to.
select scenario_id, trade
from values
    ('UK', 'home'),
    ('Germany', 'export'),
    ('France', 'export'),
    ('EIRE', 'export'),
    ('Spain', 'export'),
    ('Netherlands', 'export'),
    ('Other', 'export') as market (scenario_id, trade)
