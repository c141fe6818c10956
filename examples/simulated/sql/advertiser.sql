-- staged.advertiser of simulated: the advertisers that are registered by the end of the day.
select
    advertiser_id,
    registered_on,
    industry,
    tier
from profile
where registered_on <= :to_ds
