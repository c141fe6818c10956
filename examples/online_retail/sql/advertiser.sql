-- staged.advertiser of online_retail: a price band for every product sold up to the day that is staged.
-- The band is that of the product's first sale. It is known from the first row on and never changes, so a training
-- cutoff in the past learns nothing that was not known then; a mean or latest price would leak.
select
    upper(trim(StockCode)) as advertiser_id,
    -- Nobody recorded when a product was listed: its first row counts.
    cast(null as date) as registered_on,
    case
        when min_by(UnitPrice, struct(InvoiceDate, InvoiceNo, UnitPrice)) < 1 then 'below_1_gbp'
        when min_by(UnitPrice, struct(InvoiceDate, InvoiceNo, UnitPrice)) < 2 then '1_to_2_gbp'
        when min_by(UnitPrice, struct(InvoiceDate, InvoiceNo, UnitPrice)) < 5 then '2_to_5_gbp'
        else 'from_5_gbp'
    end as price_band
from invoice_lines
where
    cast(InvoiceDate as date) <= :to_ds
    and Quantity > 0
    and UnitPrice > 0
    and upper(trim(StockCode)) rlike '^([0-9]{5}[A-Z]{0,2}|DCGS.+)$' -- as in performance_daily.sql
group by upper(trim(StockCode))
