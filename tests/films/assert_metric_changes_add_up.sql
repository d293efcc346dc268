-- The changes of a film's votes add up to what its last pull says beyond its
-- first: no pull falls between two others unseen, none counts twice.
with metrics as (
    select * from {{ ref('fct_movie_metrics') }}
    where vote_count is not null
),

placed as (
    select
        movie_id,
        vote_count,
        vote_count_change,
        row_number() over (
            partition by movie_id
            order by pulled_date
        ) as place,
        row_number() over (
            partition by movie_id
            order by pulled_date desc
        ) as place_from_the_end
    from metrics
)

select
    movie_id,
    sum(vote_count_change) as changes,
    max(case when place_from_the_end = 1 then vote_count end) as last_votes,
    max(case when place = 1 then vote_count end) as first_votes
from placed
group by movie_id
having
    coalesce(sum(vote_count_change), 0)
    != max(case when place_from_the_end = 1 then vote_count end)
    - max(case when place = 1 then vote_count end)
