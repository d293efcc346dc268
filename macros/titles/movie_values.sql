{#
    What a value of a film has to be. Landing judges by the same rules
    (ingestion/sources/tmdb/settings.py), and a test holds both equal.
#}

{# Values of a film: TMDB's name, the column in staging, kind, the most it can be. #}
{% macro movie_value_rules() -%}
    {{- return([
        ("title", "title", "name", none),
        ("original_title", "original_title", "text", none),
        ("original_language", "original_language", "text", none),
        ("status", "status", "text", none),
        ("imdb_id", "imdb_id", "text", none),
        ("belongs_to_collection.name", "collection_name", "text", none),
        ("runtime", "runtime_minutes", "number", 1000000),
        ("budget", "budget_usd", "number", 100000000000),
        ("release_date", "release_date", "date", none),
    ] + movie_metric_rules()) -}}
{%- endmacro %}

{# The same for what moves from day to day. #}
{% macro movie_metric_rules() -%}
    {{- return([
        ("popularity", "popularity", "number", 1000000000),
        ("vote_average", "vote_average", "number", 10),
        ("vote_count", "vote_count", "number", 1000000000),
        ("revenue", "revenue_usd", "number", 100000000000),
    ]) -}}
{%- endmacro %}

{# The rule that a column breaks, as a reason code; null where it is sound. A
   column that the rules do not name is a text, or of the kind that is given. #}
{% macro broken_rule(column, kind="text") -%}
    {%- set rule = namespace(kind=kind, most=none) -%}
    {%- for _, name, its_kind, most in movie_value_rules() -%}
        {%- if column.split(".")[-1] == name -%}
            {%- set rule.kind, rule.most = its_kind, most -%}
        {%- endif -%}
    {%- endfor -%}
    case
        {% if rule.kind == "number" -%}
        when {{ column }} < 0 then 'negative'
        when {{ column }} > {{ rule.most }} then 'too_large'
        {%- elif rule.kind == "date" -%}
        when not {{ is_plausible_date(
            column, earliest_date(var("films_earliest_date"))
        ) }} then 'impossible_date'
        {%- else -%}
        {% if rule.kind == "name" -%}
        when {{ column }} is null or {{ column }} = '' then 'missing'
        {% endif -%}
        when length({{ column }}) > 1000 then 'too_long'
        {%- endif %}
    end
{%- endmacro %}

{# The column where it breaks no rule, else null. #}
{% macro sound_value(column, kind="text") -%}
    case when {{ broken_rule(column, kind) }} is null then {{ column }} end
{%- endmacro %}

{# A name where it is sound, else what stands for it: the word and the number. #}
{% macro name_or_number(name, word, number) -%}
    coalesce(
        {{ sound_value(name, "name") }},
        {{ dbt.concat([
            "'" ~ word ~ " '",
            "cast(" ~ number ~ " as " ~ dbt.type_string() ~ ")"
        ]) }}
    )
{%- endmacro %}

{# A film's title; where it has none, the original one, and at last its number. #}
{% macro title_or_number(title, original_title, movie_id) -%}
    coalesce(
        {{ sound_value(title, "name") }},
        {{ name_or_number(original_title, "Untitled film", movie_id) }}
    )
{%- endmacro %}
