-- staged.known_future before its checks: the data set's own rows, with the bucket that every table shares.
-- A row without an advertiser is for all of them, and goes to every bucket.
select
    explode(
        if(
            advertiser_id is null,
            sequence(0, :buckets - 1),
            array(cast(pmod(xxhash64(advertiser_id), :buckets) as int))
        )
    ) as bucket,
    *
from dataset_known_future
