{#- what one neighbour either side says is noise; four are a picture -#}
{%- set neighbours = 4 -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
),

-- what the certain films near a release in its brand's list grossed, for the
-- list is ordered by gross
neighbourhood as (
    select
        releases.brand_release_key,
        releases.gross_usd,
        sum(ln(certain.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between {{ neighbours }} preceding and 1 preceding
        ) as sum_above,
        count(certain.estimated_gross_usd) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between {{ neighbours }} preceding and 1 preceding
        ) as count_above,
        sum(ln(certain.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between 1 following and {{ neighbours }} following
        ) as sum_below,
        count(certain.estimated_gross_usd) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between 1 following and {{ neighbours }} following
        ) as count_below
    from releases
    left join certain
        on releases.brand_release_key = certain.brand_release_key
),

final as (
    select
        brand_release_key,
        -- below the last certain film of a list nothing tells how little it is
        count_below = 0
        and coalesce(gross_usd, 0) = 0 as is_open_below,
        case
            when gross_usd > 0 then ln(gross_usd)
            when count_above + count_below >= 2
                then
                    (coalesce(sum_above, 0) + coalesce(sum_below, 0))
                    / (count_above + count_below)
        end as expected_log_gross
    from neighbourhood
)

select * from final
