-- Grain: one row per transaction_id: what fct_transactions will hold after the
-- next build, as of now. Names instead of keys. amount and approved_amount add
-- up over everything, within one currency.
-- It reads nothing that a build swaps for another table (the dimensions), so
-- that it stays there while a build runs. Large tables are read where they are
-- used: PostgreSQL would copy one that is named once and used twice.
{%- set attributes = {
    'merchants': 'merchant_name', 'categories': 'category_name',
    'cities': 'city_name', 'payment_methods': 'payment_method',
} %}
{{ config(materialized='view') }}

with loads as (
    select * from {{ ref('stg_transactions__loads_now') }}
    where is_finished
),

statuses as (
    select
        {{ normalize_text('transaction_status', 'upper') }}
            as transaction_status,
        is_approved
    from {{ ref('transaction_statuses') }}
),

keyed_statuses as (
    select
        *,
        {{ text_key('transaction_status') }} as transaction_status_key
    from statuses
),
{%- for name, attribute in attributes.items() %}

{{ name }} as (
    select
        attribute_key,
        attribute_value as {{ attribute }}
    from {{ ref('int_transactions__attributes') }}
    where attribute_name = '{{ attribute }}'
),
{%- endfor %}

files as (
    select * from {{ ref('stg_transactions__files') }}
),

-- files in whose place another one has landed since
replacements as (
    select
        files.file_path,
        loads.loaded_at
    from files
    inner join loads on files.dlt_load_id = loads.dlt_load_id
    where
        files.is_replacement
        and loads.loaded_at > {{ newest_load(ref('fct_transactions')) }}
),

replaced_files as (
    select distinct
        files.file_checksum,
        loads.loaded_at
    from replacements
    inner join files
        on replacements.file_path = files.file_path
    inner join loads
        on
            files.dlt_load_id = loads.dlt_load_id
            and replacements.loaded_at > loads.loaded_at
),

standing as (
    select * from {{ ref('fct_transactions') }}
),

-- transactions whose row came from such a file: what else is known of them
-- decides
reopened as (
    select standing.transaction_id
    from replaced_files
    inner join standing
        on
            replaced_files.loaded_at = standing.loaded_at
            and replaced_files.file_checksum = standing.file_checksum
),

unbuilt as (
    select * from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is null
        and loaded_at > {{ newest_load(ref('fct_transactions')) }}
),

earlier as (
    select * from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is null
        and loaded_at <= {{ newest_load(ref('fct_transactions')) }}
        and transaction_id in (
            select /*+ broadcast(reopened) */ reopened.transaction_id
            from reopened
        )
),

fresh as (
    select * from {{ ref('int_transactions__fresh') }}
    where rejection_reason is null
),

versions as (
    select * from earlier
    union all
    select * from unbuilt
    union all
    select * from fresh
),

ranked as (
    select
        versions.*,
        row_number() over (
            partition by versions.transaction_id
            order by
                versions.event_at desc,
                versions.loaded_at desc,
                versions.file_checksum desc,
                versions.file_line desc
        ) as version_recency
    from versions
    left join replaced_files
        on
            versions.file_checksum = replaced_files.file_checksum
            and versions.loaded_at = replaced_files.loaded_at
    where replaced_files.loaded_at is null
),

latest as (
    select * from ranked
    where version_recency = 1
),

-- a version that has landed since wins against the row that is there, unless it
-- is older
arriving as (
    select latest.*
    from latest
    left join reopened on latest.transaction_id = reopened.transaction_id
    where
        reopened.transaction_id is not null
        or not exists (
            select 1
            from (
                select * from {{ ref('fct_transactions') }}
                where {{ is_one_of_few('transaction_id', 'latest') }}
            ) as standing
            where
                standing.transaction_id = latest.transaction_id
                and standing.event_at > latest.event_at
        )
),

-- by `not in`, which is looked up row by row: planners know nothing of how many
-- of the newest rows there are, and a join might compare each with each
staying as (
    select * from {{ ref('fct_transactions') }}
    where
        transaction_id not in (select arriving.transaction_id from arriving)
        and transaction_id not in (select reopened.transaction_id from reopened)
),

built_rows as (
    select
        staying.transaction_id,
        staying.user_id,
        {%- for name, attribute in attributes.items() %}
        {{ name_or_unknown(name ~ '.' ~ attribute) }} as {{ attribute }},
        {%- endfor %}
        {{ name_or_unknown('keyed_statuses.transaction_status') }}
            as transaction_status,
        coalesce(keyed_statuses.is_approved, false) as is_approved,
        {{ name_or_unknown('staying.currency_code') }} as currency_code,
        staying.amount,
        staying.approved_amount,
        staying.event_at,
        staying.loaded_at,
        false as is_live
    from staying
    {% for name, attribute in attributes.items() -%}
    left join {{ name }}
        on
            staying.{{ attribute | replace('_name', '') }}_key
            = {{ name }}.attribute_key
    {% endfor -%}
    left join keyed_statuses
        on
            staying.transaction_status_key
            = keyed_statuses.transaction_status_key
),

live_rows as (
    select
        arriving.transaction_id,
        arriving.user_id,
        {%- for attribute in attributes.values() %}
        {{ name_or_unknown('arriving.' ~ attribute) }} as {{ attribute }},
        {%- endfor %}
        {{ name_or_unknown('arriving.transaction_status') }}
            as transaction_status,
        coalesce(statuses.is_approved, false) as is_approved,
        {{ name_or_unknown('arriving.currency_code') }} as currency_code,
        arriving.amount,
        cast(
            case when statuses.is_approved then arriving.amount else 0 end
            as numeric(18, 4)
        ) as approved_amount,
        arriving.event_at,
        arriving.loaded_at,
        true as is_live
    from arriving
    left join statuses
        on arriving.transaction_status = statuses.transaction_status
),

final as (
    select * from built_rows
    union all
    select * from live_rows
)

select * from final
