-- The transaction star as one would write it by hand for PostgreSQL: what
-- benchmarks/build.py compares the models with. Makes the tables of
-- models/marts/transactions, with their keys and indexes, in the schema hand.
drop schema if exists hand cascade;
create schema hand;

create function hand.key(name text) returns text language sql immutable parallel safe
return md5(coalesce(name, '_dbt_utils_surrogate_key_null_'));

-- every version that counts, typed, with the rule that it breaks; not a
-- temporary table, for those are not read in parallel
create unlogged table hand.versions as
with loads as (
    select load_id, inserted_at at time zone 'UTC' as loaded_at
    from raw_transactions._dlt_loads
    where status = 0
),

files as (
    select files._dlt_load_id, files._file_checksum, files.path, files.is_replacement, loads.loaded_at
    from raw_transactions.files
    join loads on loads.load_id = files._dlt_load_id
),

replaced as (
    select distinct earlier._dlt_load_id, earlier._file_checksum
    from files as earlier
    join files as later
        on later.path = earlier.path
        and later.is_replacement
        and later.loaded_at > earlier.loaded_at
),

typed as (
    select
        transaction_id::text,
        user_id::text,
        nullif(trim(merchant), '') as merchant_name,
        nullif(trim(category), '') as category_name,
        nullif(trim(city), '') as city_name,
        nullif(upper(trim(status)), '') as transaction_status,
        nullif(lower(trim(payment_method)), '') as payment_method,
        nullif(upper(trim(currency)), '') as currency_code,
        amount,
        event_ts at time zone 'UTC' as event_at,
        extra_fields::text as extra_fields,
        _file_name as file_name,
        _file_checksum::text as file_checksum,
        _file_line as file_line,
        _dlt_load_id as dlt_load_id
    from raw_transactions.transactions
    where not exists (
        select from replaced
        where replaced._dlt_load_id = transactions._dlt_load_id
            and replaced._file_checksum = transactions._file_checksum
    )
)

select
    typed.*,
    loads.loaded_at,
    case
        when typed.amount < 0 then 'negative_amount'
        when typed.amount > coalesce(currencies.largest_amount, 100000) then 'absurd_amount'
        when typed.transaction_status is not null
            and statuses.transaction_status is null then 'unknown_status'
        when typed.currency_code is not null
            and currencies.currency_code is null then 'unknown_currency'
        when typed.event_at < date '1980-01-01' then 'ancient_timestamp'
        when typed.event_at > loads.loaded_at + interval '24 hours' then 'future_timestamp'
    end as rejection_reason
from typed
join loads on loads.load_id = typed.dlt_load_id
left join seeds.currencies using (currency_code)
left join seeds.transaction_statuses as statuses using (transaction_status);

analyze hand.versions;

create table hand.rejected_transactions as
select
    'marked' as rejection_stage, rejection_reason as reason_code, file_name::text, file_line,
    file_checksum, dlt_load_id::text, loaded_at, transaction_id, event_at, amount, currency_code,
    case
        when rejection_reason in ('negative_amount', 'absurd_amount') then concat_ws(' ', amount, currency_code)
        when rejection_reason = 'unknown_status' then transaction_status
        when rejection_reason = 'unknown_currency' then currency_code
        else event_at::text
    end as broken_value,
    null as raw_text
from hand.versions
where rejection_reason is not null
union all
select
    'unread', reason_code, _file_name, _file_line, _file_checksum, _dlt_load_id,
    inserted_at at time zone 'UTC', null, null, null, null, null, raw_text
from raw_transactions.rejects
join raw_transactions._dlt_loads on load_id = _dlt_load_id and status = 0;

create index on hand.rejected_transactions (loaded_at);

-- dimensions
create unlogged table hand.combinations as
select merchant_name, category_name, city_name, payment_method
from hand.versions
where rejection_reason is null
group by 1, 2, 3, 4;

create table hand.dim_city as
select hand.key(city_name) as city_key, coalesce(city_name, '(unknown)') as city_name, city_name is null as is_unknown
from (select city_name from hand.combinations union select null) as names;

create table hand.dim_category as
select
    hand.key(category_name) as category_key, coalesce(category_name, '(unknown)') as category_name,
    category_name is null as is_unknown
from (select category_name from hand.combinations union select null) as names;

create table hand.dim_payment_method as
select
    hand.key(payment_method) as payment_method_key, coalesce(payment_method, '(unknown)') as payment_method,
    payment_method is null as is_unknown
from (select payment_method from hand.combinations union select null) as names;

create table hand.dim_merchant as
select
    hand.key(merchant_name) as merchant_key, hand.key(brand_name) as brand_key,
    coalesce(merchant_name, '(unknown)') as merchant_name,
    brand_name is not null as is_brand_affiliated, merchant_name is null as is_unknown
from (select merchant_name from hand.combinations union select null) as names
left join seeds.merchant_brands using (merchant_name);

create table hand.dim_transaction_status as
select
    hand.key(transaction_status) as transaction_status_key, transaction_status, status_description,
    is_approved, is_final, false as is_unknown
from seeds.transaction_statuses
union all
select hand.key(null), '(unknown)', 'The transaction came without a status', false, false, true;

alter table hand.dim_city add primary key (city_key);
alter table hand.dim_category add primary key (category_key);
alter table hand.dim_payment_method add primary key (payment_method_key);
alter table hand.dim_merchant add primary key (merchant_key);
alter table hand.dim_transaction_status add primary key (transaction_status_key);

-- facts
create table hand.fct_transactions as
select
    transaction_id,
    to_char(event_at, 'YYYYMMDD')::integer as date_key,
    hand.key(merchant_name) as merchant_key,
    hand.key(category_name) as category_key,
    hand.key(city_name) as city_key,
    hand.key(payment_method) as payment_method_key,
    hand.key(transaction_status) as transaction_status_key,
    user_id,
    case
        when amount < 20 then '<20' when amount < 100 then '20-100' when amount < 250 then '100-250'
        when amount < 500 then '250-500' else '>=500'
    end as amount_bucket,
    currency_code,
    amount,
    (case when is_approved then amount else 0 end)::numeric(18, 4) as approved_amount,
    event_at::date as event_date,
    event_at,
    loaded_at,
    file_checksum,
    file_line,
    extra_fields
from (
    select distinct on (transaction_id) *
    from hand.versions
    where rejection_reason is null
    order by transaction_id, event_at desc, loaded_at desc, file_checksum desc, file_line desc
) as latest
left join seeds.transaction_statuses using (transaction_status);

alter table hand.fct_transactions add primary key (transaction_id);
create index on hand.fct_transactions (loaded_at);
create index on hand.fct_transactions (event_date);
analyze hand.fct_transactions;

create table hand.fct_transaction_status_changes as
with ordered as (
    select
        *,
        lag(transaction_status) over versions as status_before,
        row_number() over versions as version_number
    from hand.versions
    where rejection_reason is null
    window versions as (
        partition by transaction_id order by event_at, loaded_at, file_checksum, file_line
    )
),

changes as (
    select
        *,
        row_number() over changes as change_number,
        lag(event_at) over changes as previous_changed_at
    from ordered
    where version_number = 1 or status_before is distinct from transaction_status
    window changes as (partition by transaction_id order by version_number)
)

select
    transaction_id,
    change_number,
    to_char(event_at, 'YYYYMMDD')::integer as date_key,
    hand.key(merchant_name) as merchant_key,
    hand.key(category_name) as category_key,
    hand.key(city_name) as city_key,
    hand.key(payment_method) as payment_method_key,
    hand.key(transaction_status) as transaction_status_key,
    hand.key(status_before) as previous_transaction_status_key,
    user_id,
    currency_code,
    amount,
    event_at as changed_at,
    event_at::date as changed_date,
    previous_changed_at,
    extract(epoch from date_trunc('second', event_at) - date_trunc('second', previous_changed_at))::bigint
        as seconds_since_previous,
    loaded_at
from changes;

alter table hand.fct_transaction_status_changes add primary key (transaction_id, change_number);
create index on hand.fct_transaction_status_changes (loaded_at);
create index on hand.fct_transaction_status_changes (changed_date);

-- aggregates
create table hand.daily_transactions as
select
    event_date as date_day, extract(isodow from event_date)::integer as iso_day_of_week,
    trim(to_char(event_date, 'Day')) as weekday_name, city_name, category_name, transaction_status, payment_method, amount_bucket,
    coalesce(currency_code, '(unknown)') as currency_code, transaction_count,
    case when is_approved then transaction_count else 0 end as approved_count,
    amount, approved_amount, loaded_at
from (
    select
        event_date, city_key, category_key, transaction_status_key, payment_method_key, amount_bucket,
        currency_code, count(*) as transaction_count, sum(amount)::numeric(20, 4) as amount,
        sum(approved_amount)::numeric(20, 4) as approved_amount, max(loaded_at) as loaded_at
    from hand.fct_transactions
    group by 1, 2, 3, 4, 5, 6, 7
) as daily
join hand.dim_city using (city_key)
join hand.dim_category using (category_key)
join hand.dim_transaction_status using (transaction_status_key)
join hand.dim_payment_method using (payment_method_key);

create index on hand.daily_transactions (date_day);
create index on hand.daily_transactions (loaded_at);

create table hand.hourly_transactions as
select
    event_hour, event_hour::date as date_day, extract(hour from event_hour)::integer as hour_of_day,
    city_name, category_name, transaction_status, amount_bucket,
    coalesce(currency_code, '(unknown)') as currency_code, transaction_count, case when is_approved then transaction_count else 0 end as approved_count,
    amount, approved_amount, loaded_at
from (
    select
        date_trunc('hour', event_at) as event_hour, city_key, category_key, transaction_status_key,
        amount_bucket, currency_code, count(*) as transaction_count, sum(amount)::numeric(20, 4) as amount,
        sum(approved_amount)::numeric(20, 4) as approved_amount, max(loaded_at) as loaded_at
    from hand.fct_transactions
    group by 1, 2, 3, 4, 5, 6
) as hourly
join hand.dim_city using (city_key)
join hand.dim_category using (category_key)
join hand.dim_transaction_status using (transaction_status_key);

create index on hand.hourly_transactions (date_day);
create index on hand.hourly_transactions (event_hour);
create index on hand.hourly_transactions (loaded_at);

create table hand.daily_merchants as
select
    event_date as date_day, merchant_key, merchant_name, brand_name, is_brand_affiliated, category_name, city_name,
    transaction_status, amount_bucket, coalesce(currency_code, '(unknown)') as currency_code,
    transaction_count,
    case when is_approved then transaction_count else 0 end as approved_count,
    amount, approved_amount, loaded_at
from (
    select
        event_date, merchant_key, category_key, city_key, transaction_status_key, amount_bucket,
        currency_code, count(*) as transaction_count, sum(amount)::numeric(20, 4) as amount,
        sum(approved_amount)::numeric(20, 4) as approved_amount, max(loaded_at) as loaded_at
    from hand.fct_transactions
    group by 1, 2, 3, 4, 5, 6, 7
) as daily
join hand.dim_merchant using (merchant_key)
join marts.dim_brand using (brand_key)
join hand.dim_category using (category_key)
join hand.dim_city using (city_key)
join hand.dim_transaction_status using (transaction_status_key);

create index on hand.daily_merchants (date_day);
create index on hand.daily_merchants (loaded_at);

create table hand.merchant_ranking as
select
    *,
    rank() over (partition by currency_code order by total_amount desc)::integer as amount_rank,
    (approved_count::numeric(18, 6) / transaction_count)::numeric(7, 6) as approval_rate
from (
    select
        merchant_key, dim_merchant.merchant_name, dim_merchant.is_brand_affiliated, currency_code,
        sum(transaction_count)::bigint as transaction_count, sum(approved_count)::bigint as approved_count,
        sum(amount)::numeric(20, 4) as total_amount, sum(approved_amount)::numeric(20, 4) as approved_amount
    from hand.daily_merchants
    join hand.dim_merchant using (merchant_key)
    group by 1, 2, 3, 4
) as summed;

create table hand.latest_transactions as
select
    transaction_id, user_id, merchant_name, category_name, city_name, transaction_status, payment_method,
    amount_bucket, amount as transaction_amount, is_approved, event_date as date_day, event_at, loaded_at,
    coalesce(currency_code, '(unknown)') as currency_code
from (
    select * from hand.fct_transactions
    order by event_date desc, event_at desc, transaction_id desc
    limit 100000
) as latest
join hand.dim_merchant using (merchant_key)
join hand.dim_category using (category_key)
join hand.dim_city using (city_key)
join hand.dim_transaction_status using (transaction_status_key)
join hand.dim_payment_method using (payment_method_key);

alter table hand.latest_transactions add primary key (transaction_id);
create index on hand.latest_transactions (event_at);

drop table hand.versions, hand.combinations;
