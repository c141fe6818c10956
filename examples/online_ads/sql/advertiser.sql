-- staged.advertiser of online_ads: the three parts of the id, for the advertisers seen up to the day that is staged.
select distinct
    concat(campaign_number, '|', user_engagement, '|', banner) as advertiser_id,
    -- Nobody recorded when a campaign was booked: its first row counts.
    cast(null as date) as registered_on,
    campaign_number as campaign,
    user_engagement as engagement,
    banner
from ads
where to_date(concat('2020 ', month, ' ', day), 'yyyy MMMM d') <= :to_ds
