{#
    The key on which titles of different sources are compared: accents folded,
    re-release notes taken off, "&" read as "and", lower case, and without
    spaces and punctuation. Letters of other scripts stay as they are, so that
    a Cyrillic title is not emptied. Null and blank titles give null.
#}
{% macro normalize_title(title) -%}
    {{ return(adapter.dispatch("normalize_title")(title)) }}
{%- endmacro %}

{% macro default__normalize_title(title) -%}
    {{ title_key(strip_release_note(fold_text(title))) }}
{%- endmacro %}

{#- for PostgreSQL translate() is dear, replace() and a test are cheap -#}
{% macro postgres__normalize_title(title) -%}
    case
        when
            {{ is_simple_title(title) }}
            and lower({{ title }}) not like '%release%'
            and lower({{ title }}) not like '%issue%'
            then nullif({{ replace_each(
                "replace(lower(" ~ title ~ "), '&', 'and')",
                simple_punctuation() ~ " ", ""
            ) }}, '')
        else {{ default__normalize_title(title) }}
    end
{%- endmacro %}

{# Lower case, with accented Latin letters replaced by their plain ones. #}
{% macro fold_text(text) -%}
    {{ return(adapter.dispatch("fold_text")(text)) }}
{%- endmacro %}

{% macro default__fold_text(text) -%}
    {%- set letters = folded_letters() -%}
    replace(replace(replace(translate(
        lower({{ text }}),
        '{{ letters["accented"] }}',
        '{{ letters["plain"] }}'
    ), 'æ', 'ae'), 'œ', 'oe'), 'ß', 'ss')
{%- endmacro %}

{#- most text has nothing to fold, and looking is cheaper than translating -#}
{% macro postgres__fold_text(text) -%}
    case
        when {{ text }} ~ '[{{ folded_letters()["accented"] }}æœßÆŒẞ\u212b]'
            then {{ default__fold_text(text) }}
        else lower({{ text }})
    end
{%- endmacro %}

{# Letters that are folded, and what each becomes. #}
{% macro folded_letters() -%}
    {%- set lower = "àáâãäåāăąçćčďđèéêëēėęěğìíîïīıłñńňòóôõöøōőřśşšťùúûüūůűýÿźżž" -%}
    {%- set upper = "ÀÁÂÃÄÅĀĂĄÇĆČĎĐÈÉÊËĒĖĘĚĞÌÍÎÏĪİŁÑŃŇÒÓÔÕÖØŌŐŘŚŞŠŤÙÚÛÜŪŮŰÝŸŹŻŽ" -%}
    {%- set plain = "aaaaaaaaacccddeeeeeeeegiiiiiilnnnoooooooorssstuuuuuuuyyzzz" -%}
    {{ return({
        "accented": lower ~ upper ~ "²³’‘", "plain": plain ~ plain ~ "23''''"
    }) }}
{%- endmacro %}

{# Is a title of the commonest characters only? For macros of PostgreSQL. #}
{% macro is_simple_title(title) -%}
    {{ title }} !~ '[^A-Za-z0-9 &{{ simple_punctuation() | replace("'", "''") }}]'
{%- endmacro %}

{# Commonest punctuation; the hyphen stands last, for regular expressions. #}
{% macro simple_punctuation() -%}
    {{ return(":.,!?'-") }}
{%- endmacro %}

{# Replace each of some characters by one text. #}
{% macro replace_each(expression, characters, replacement) -%}
    {%- for _ in characters %}replace({% endfor %}{{ expression }}
    {%- for character in characters -%}
    , '{{ character | replace("'", "''") }}', '{{ replacement }}')
    {%- endfor %}
{%- endmacro %}

{#
    Box Office Mojo glues the note of a re-release to the title:
    "The Dark Knight2012 Re-release". Takes folded text.
#}
{% macro strip_release_note(folded) -%}
    {{ regexp_remove(
        folded,
        " *[(]?(19|20)[0-9][0-9] *((3-?d )?(re-?)?release|re-?issue)[)]? *$"
    ) }}
{%- endmacro %}

{#
    CTEs that add loose_title_key to a CTE with a column title: numbers as
    digits however they are written ("Part II", "Two", "2"), and without
    articles. The last CTE is called <cte>_keyed. A few words at a time, so that
    no expression is nested deeper than parsers take.
#}
{% macro loose_title_ctes(cte) -%}
    {%- set words = {
        "and": "", "the": "", "a": "", "an": "", "part": "", "vol": "",
        "volume": "", "chapter": "", "one": "1", "two": "2", "three": "3",
        "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
        "nine": "9", "ten": "10", "ii": "2", "iii": "3", "iv": "4", "v": "5",
        "vi": "6", "vii": "7", "viii": "8", "ix": "9",
    } -%}
    {%- set batches = words.items() | batch(5) | list -%}
{{ cte }}_words_0 as (
    select
        *,
        {{ spaced_words("title") }} as words_0
    from {{ cte }}
),
    {% for batch in batches %}
{{ cte }}_words_{{ loop.index }} as (
    select
        *,
        {% for _ in batch %}replace({% endfor %}words_{{ loop.index0 }}
        {%- for word, number in batch %}, ' {{ word }} ', ' {{ number }} ')
        {%- endfor %} as words_{{ loop.index }}
    from {{ cte }}_words_{{ loop.index0 }}
),
    {% endfor %}
{{ cte }}_keyed as (
    select
        *,
        nullif(replace(words_{{ batches | length }}, ' ', ''), '')
            as loose_title_key
    from {{ cte }}_words_{{ batches | length }}
)
{%- endmacro %}

{# Folded title with every word between two spaces of its own. #}
{% macro spaced_words(title) -%}
    {{ return(adapter.dispatch("spaced_words")(title)) }}
{%- endmacro %}

{% macro default__spaced_words(title) -%}
    replace(
        ' ' || translate(
            replace({{ fold_text(title) }}, '&', ' and '),
            '{{ punctuation() }}''',
            '{{ " " * (punctuation() | length) }}'
        ) || ' ',
        ' ',
        '  '
    )
{%- endmacro %}

{% macro postgres__spaced_words(title) -%}
    case
        when {{ is_simple_title(title) }}
            then replace(
                ' ' || {{ replace_each(
                    replace_each(
                        "replace(lower(" ~ title ~ "), '&', ' and ')", "'", ""
                    ),
                    simple_punctuation() | replace("'", ""), " "
                ) }} || ' ',
                ' ',
                '  '
            )
        else {{ default__spaced_words(title) }}
    end
{%- endmacro %}

{# Folded text without spaces and punctuation; null where nothing is left. #}
{% macro title_key(folded) -%}
    {#- translate() deletes what has no counterpart, and needs no escapes -#}
    nullif(translate(
        replace({{ folded }}, '&', 'and'), ' ''{{ punctuation() }}', ''
    ), '')
{%- endmacro %}

{# Characters that titles are compared without; space and apostrophe besides. #}
{% macro punctuation() -%}
    {{ return(
        "\t!\"#$%()*+,-./:;<=>?@[]^_`{|}~"
        ~ "\u00a0\u00a1\u00ab\u00b7\u00bb\u00bf\u2009\u200b\u2010\u2011\u2012"
        ~ "\u2013\u2014\u201c\u201d\u2022\u2026\u202f\u3000\uff01\uff0c\uff1a"
        ~ "\uff1f"
    ) }}
{%- endmacro %}
