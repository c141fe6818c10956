-- staged.performance_daily of online_retail: one product (advertiser) in one market (scenario) on one day, summed from
-- invoice lines.
-- Every line gets the first rule that fits; lines that are dropped come out as rows of their own, to be counted.
with lines as (
    select
        cast(InvoiceDate as date) as ds,
        -- 85179a and 85179A are one product: some lines without a customer number write the colour letter small.
        upper(trim(StockCode)) as product,
        case
            when Country = 'United Kingdom' then 'UK'
            when Country in ('Germany', 'France', 'EIRE', 'Spain', 'Netherlands') then Country
            when Country is not null then 'Other'
        end as market,
        InvoiceNo,
        StockCode,
        InvoiceDate,
        Quantity,
        UnitPrice,
        CustomerID
    from invoice_lines
    -- A line without a date belongs to no day: it is let through, for the checks to stop the run.
    where cast(InvoiceDate as date) between :from_ds and :to_ds or InvoiceDate is null
),

-- The n-th sale and the n-th cancellation of the same customer, product, price and quantity on one day belong together.
numbered as (
    select
        *,
        row_number() over (
            partition by ds, CustomerID, product, UnitPrice, abs(Quantity), Quantity > 0
            order by InvoiceDate, InvoiceNo, StockCode, market
        ) as nth
    from lines
),

paired as (
    select
        *,
        max(if(Quantity < 0, InvoiceDate, null)) over (
            partition by ds, CustomerID, product, UnitPrice, abs(Quantity), nth
        ) as cancelled_at
    from numbered
),

judged as (
    select
        *,
        case
            -- Postage, discounts, fees, samples, vouchers, bad debt. A pattern and not a list of such codes, so that a
            -- fee invented tomorrow is not taken for a product. DCGS.. are the web shop's own products.
            when not product rlike '^([0-9]{5}[A-Z]{0,2}|DCGS.+)$' then 'drop:not_a_product'
            -- A return is booked on the day it comes back, often weeks after the sale. Revenue here is gross: what was
            -- sold on the day.
            when InvoiceNo like 'C%' then 'drop:return'
            -- Breakage, counting errors, goods thrown away: negative without being a return, and free.
            when Quantity < 0 and UnitPrice = 0 then 'drop:stock_adjustment'
            -- Stock found again, samples, gifts: no sale. Only an exact 0; a negative price is for the checks to find.
            when UnitPrice = 0 then 'drop:zero_price'
            -- Undone within the day, so never a sale as of its end. Uses nothing of later days. One of these lines, of
            -- 168,470 gbp on the last day, is larger than all other sales of that day and the day before together.
            when CustomerID is not null and cancelled_at >= InvoiceDate then 'drop:cancelled_same_day'
            when StockCode <> product then 'merge:product_code_spelling'
        end as rule
    from paired
),

grouped as (
    select
        *,
        -- Kept lines, respelled or not, are one row a day, product and market.
        if(rule like 'drop:%', rule, null) as dropped
    from judged
)

select
    ds,
    product as advertiser_id,
    market as scenario_id,
    -- Prices have at most three decimals; rounding takes away what the order of a floating-point sum adds.
    round(sum(Quantity * UnitPrice), 3) as revenue,
    cast(sum(Quantity) as double) as units,
    cast(count(distinct InvoiceNo) as double) as orders,
    count(*) as source_rows,
    max(rule) as dirt
from grouped
group by ds, product, market, dropped
