{{ config(
    warn_if=">0",
    error_if=">9",
    meta={"why": "a warehouse of one's own may hold few films; the sample holds all"}
) }}

-- Every brand's #1 release is a film of the catalogue. One or two may be
-- missing where only a part of TMDB has been landed.
select
    brand_name,
    release_title
from {{ ref('int_brand_releases__matched') }}
where
    is_top_release
    and not is_matched
