-- staged.performance_daily of online_ads: a raw row is one advertiser (campaign x engagement x banner) in one placement
-- on one day.
with dated as (
    select
        -- The file has no year: it is 2020. An unknown month name stops the run here (ANSI mode).
        to_date(concat('2020 ', month, ' ', day), 'yyyy MMMM d') as ds,
        *
    from ads
),

judged as (
    select
        *,
        case
            -- A failed look-up of whoever exported the file: the scenario cannot be known. 0.001 % of all impressions.
            when placement = '#N/A' then 'drop:unknown_placement'
            -- Equal in every column, fractions of a cent included: exported twice. The first one stays.
            when row_number() over (
                partition by
                    ds, campaign_number, user_engagement, banner, placement,
                    displays, cost, clicks, revenue, post_click_conversions, post_click_sales_amount
                order by ds
            ) > 1 then 'drop:duplicate_row'
            -- Late clicks on banners shown earlier, as a campaign ends; they were charged at the usual 0.108 a click.
            -- Dropping the row would lose that money and turn an active day into a missing one, so impressions are
            -- raised to the least that fits.
            when clicks > displays then 'repair:impressions_below_clicks'
        end as dirt
    from dated
    -- A row without a date belongs to no day: it is let through, for the checks to stop the run.
    where ds between :from_ds and :to_ds or ds is null
)

select
    ds,
    -- concat and not concat_ws: a null part must give a null id, which the checks find, and not a shorter id.
    concat(campaign_number, '|', user_engagement, '|', banner) as advertiser_id,
    placement as scenario_id,
    -- Not greatest(), which would hide a null.
    cast(if(clicks > displays, clicks, displays) as double) as impressions,
    cast(clicks as double) as clicks,
    revenue as spend,
    cost,
    cast(post_click_conversions as double) as conversions,
    post_click_sales_amount as sales,
    1L as source_rows,
    dirt
from judged
