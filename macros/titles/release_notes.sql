{#
    What Box Office Mojo and others add to a title that comes back to cinemas, or
    that is shown in another form: "The Dark Knight2012 Re-release", "Vertigo (Special
    Edition)", "Cats: The IMAX Experience". The macros are for the CTEs of
    release_note_ctes, which takes notes off from the end, one kind after the other.
#}

{# CTEs that add to a CTE with a column release_title, in folded text and each null
   where there is none: printed_title (what is printed, without entities), bare_title
   (without any note), release_note, noted_year, and is_year_of_film (the year stands
   alone in brackets). The last CTE is called <cte>_noted. #}
{% macro release_note_ctes(cte) -%}
    {#- a few at a time, so that no expression is nested deeper than parsers take -#}
    {%- set batches = html_entities() | batch(16) | list -%}
{{ cte }}_read_0 as (
    select
        *,
        -- the one word of notes that ends other words ("climax") is set apart
        -- while its capitals tell
        lower(replace(release_title, 'IMAX', ' IMAX')) as title_0
    from {{ cte }}
),
    {% for batch in batches %}
{{ cte }}_read_{{ loop.index }} as (
    select
        *,
        {% for _ in batch %}replace({% endfor %}title_{{ loop.index0 }}
        {%- for entity, text in batch %}, '{{ entity }}', '{{ text }}')
        {%- endfor %} as title_{{ loop.index }}
    from {{ cte }}_read_{{ loop.index0 }}
),
    {% endfor %}
{{ cte }}_printed as (
    select
        *,
        replace(replace(
            {{ fold_text("title_" ~ batches | length) }}, '–', '-'
        ), '—', '-') as printed_title
    from {{ cte }}_read_{{ batches | length }}
),

{{ cte }}_year_noted as (
    select
        *,
        -- glued: what comes before the year is no blank, and is none of the note
        coalesce(
            substr({{ regexp_first("printed_title", glued_year_note()) }}, 2),
            {{ regexp_first("printed_title", year_in_brackets()) }}
        ) as year_note
    from {{ cte }}_printed
),

{{ cte }}_shortened as (
    select
        *,
        trim(substr(
            printed_title,
            1,
            length(printed_title) - coalesce(length(year_note), 0)
        )) as title_without_year
    from {{ cte }}_year_noted
),

{{ cte }}_form_noted as (
    select
        *,
        {{ regexp_first("title_without_year", form_note()) }} as form_note
    from {{ cte }}_shortened
),

{{ cte }}_bared as (
    select
        *,
        trim(substr(
            title_without_year,
            1,
            length(title_without_year) - coalesce(length(form_note), 0)
        )) as title_without_form
    from {{ cte }}_form_noted
),

-- a title that is nothing but a note is a title
{{ cte }}_noted as (
    select
        *,
        case
            when {{ title_key("title_without_form") }} is not null
                then title_without_form
            when {{ title_key("title_without_year") }} is not null
                then title_without_year
            else printed_title
        end as bare_title,
        case
            when {{ title_key("title_without_form") }} is not null
                then nullif(
                    coalesce(form_note, '') || coalesce(year_note, ''), ''
                )
            when {{ title_key("title_without_year") }} is not null
                then year_note
        end as release_note,
        case
            when {{ title_key("title_without_year") }} is not null
                then cast(
                    {{ regexp_first("year_note", a_year()) }} as integer
                )
        end as noted_year,
        coalesce(
            form_note is null
            and {{ regexp_first("year_note", "[a-z]") }} is null
            and year_note is not null,
            false
        ) as is_year_of_film
    from {{ cte }}_bared
)
{%- endmacro %}

{# The entities of HTML that titles have, by names and numbers, with the folded text that
   they stand for. "&amp;" comes first, for it may hide another. #}
{% macro html_entities() -%}
    {%- set letters = {
        "&": ["amp", 38], "\"": ["quot", 34], "''": ["apos", 39, "039", "x27"], " ": ["nbsp", 160],
        "<": ["lt", 60], ">": ["gt", 62], "-": ["ndash", 8211, "mdash", 8212, "shy", 173],
        "’": ["lsquo", 8216, "rsquo", 8217], "”": ["ldquo", 8220, "rdquo", 8221],
        "...": ["hellip", 8230], "": ["trade", 8482, "reg", 174, "copy", 169], "·": ["middot", 183],
        "a": ["aacute", 225, "agrave", 224, "acirc", 226, "atilde", 227, "auml", 228, "aring", 229],
        "ae": ["aelig", 230], "c": ["ccedil", 231], "n": ["ntilde", 241],
        "e": ["eacute", 233, "egrave", 232, "ecirc", 234, "euml", 235],
        "i": ["iacute", 237, "igrave", 236, "icirc", 238, "iuml", 239],
        "o": ["oacute", 243, "ograve", 242, "ocirc", 244, "otilde", 245, "ouml", 246, "oslash", 248],
        "u": ["uacute", 250, "ugrave", 249, "ucirc", 251, "uuml", 252],
        "ss": ["szlig", 223], "2": ["sup2", 178], "3": ["sup3", 179],
    } -%}
    {%- set entities = [] -%}
    {%- for text, names in letters.items() -%}
        {%- for name in names -%}
            {%- set sign = "#" if name is number or name[0] in "0x" else "" -%}
            {%- do entities.append(("&" ~ sign ~ name ~ ";", text)) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(entities) }}
{%- endmacro %}

{# Patterns of notes, for folded text: see regexp_first. #}
{% macro a_year() -%}
    {{ return("(?:19|20)[0-9][0-9]") }}
{%- endmacro %}

{# A year without a blank before it, and words. #}
{% macro glued_year_note() -%}
    {{ return("[^ ]" ~ a_year() ~ "(?:[ -]+[^ -]| *[a-z(]).*$") }}
{%- endmacro %}

{% macro year_in_brackets() -%}
    {{ return("[([] *" ~ a_year() ~ " *[])] *$") }}
{%- endmacro %}

{# Words at the end that say in which form the film is shown; some of them are words of
   titles as well, and count only beside another, behind a sign, or in brackets. #}
{% macro form_note() -%}
    {%- set three_d = "3-?d" -%}
    {%- set again = "re-?released?|re-?issued?" -%}
    {%- set kinds = (
        "special|extended|anniversary|collector.?s?|director.?s?|final|limited|wide|theatrical"
        ~ "|ultimate|deluxe|digital(?:ly)?|remastered|restored|unrated|uncut|r-rated|definitive"
        ~ "|original|imax|4k|70 ?mm|black (?:and|&) white|colou?r|widescreen|roadshow|international"
        ~ "|fan|sing-?along|disney|real|[0-9]+(?:st|nd|rd|th)|" ~ three_d ~ "|" ~ again
    ) -%}
    {%- set forms = (
        "release|re-?issue|edition|cut|version|engagement|experience|presentation|anniversary"
        ~ "|restoration|screenings?|event"
    ) -%}
    {%- set by_themselves = again ~ "|double (?:bill|feature)|" ~ three_d -%}
    {%- set behind_a_blank = "imax|remastered|sing-?along" -%}
    {%- set in_brackets = behind_a_blank ~ "|restored|uncut|unrated|" ~ by_themselves ~ "|" ~ forms -%}
    {%- set opening = " *[:,-]? *(?:(?:the|in) +)*" -%}
    {{ return(
        "(?:" ~ opening ~ "(?:(?:" ~ kinds ~ ")[ -]+)+(?:" ~ forms ~ "|" ~ three_d ~ "|imax)"
        ~ "|" ~ opening ~ "(?:" ~ by_themselves ~ ")"
        ~ "|(?: |[:,-])" ~ opening ~ "(?:" ~ behind_a_blank ~ ")"
        ~ "| *[([](?:[^()]*[^a-z()])?(?:" ~ in_brackets ~ ")(?:[^a-z()][^()]*)?[])]"
        ~ ")[ .!]*$"
    ) }}
{%- endmacro %}
