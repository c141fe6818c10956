-- staged.performance_daily of simulated: the newest delivery of each row that had arrived by the end of the last day
-- that is staged. Staging the last days again, as a range, takes in what came since.
with arrived as (
    select
        *,
        first_value(delivered_on) over newest_first as newest,
        row_number() over newest_first as copy
    from performance
    where ds between :from_ds and :to_ds and delivered_on <= :to_ds
    window newest_first as (partition by ds, advertiser_id, scenario_id order by delivered_on desc)
)

select
    ds,
    advertiser_id,
    scenario_id,
    -- A click needs an impression, and clicks are what is billed: impressions are raised to the least that fits.
    cast(if(clicks > impressions, clicks, impressions) as double) as impressions,
    cast(clicks as double) as clicks,
    abs(spend) as spend,
    cast(conversions as double) as conversions,
    1L as source_rows,
    case
        -- Whose it was cannot be known.
        when advertiser_id is null then 'drop:no_advertiser'
        when delivered_on < newest then 'drop:restated'
        -- Delivered twice, equal in every column.
        when copy > 1 then 'drop:duplicate_row'
        when clicks > impressions then 'repair:impressions_below_clicks'
        -- The simulator turns the sign and nothing else.
        when spend < 0 then 'repair:spend_sign'
    end as dirt
from arrived
