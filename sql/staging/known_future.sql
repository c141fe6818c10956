-- staged.known_future before its checks: the data set's own rows, with the bucket that every table shares.
-- A row without an advertiser goes to bucket 0, where the checks find it.
select
    coalesce(cast(pmod(xxhash64(advertiser_id), :buckets) as int), 0) as bucket,
    *
from dataset_known_future
