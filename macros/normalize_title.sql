{#
    The key on which titles of different sources are compared: accents folded,
    re-release notes taken off, "&" read as "and", lower case, and without
    spaces and punctuation. Letters of other scripts stay as they are, so that
    a Cyrillic title is not emptied. Null and blank titles give null.
#}
{% macro normalize_title(title) -%}
    {{ title_key(strip_release_note(fold_text(title))) }}
{%- endmacro %}

{# Lower case, with accented Latin letters replaced by their plain ones. #}
{% macro fold_text(text) -%}
    {%- set lower = "àáâãäåāăąçćčďđèéêëēėęěğìíîïīıłñńňòóôõöøōőřśşšťùúûüūůűýÿźżž" -%}
    {%- set upper = "ÀÁÂÃÄÅĀĂĄÇĆČĎĐÈÉÊËĒĖĘĚĞÌÍÎÏĪİŁÑŃŇÒÓÔÕÖØŌŐŘŚŞŠŤÙÚÛÜŪŮŰÝŸŹŻŽ" -%}
    {%- set plain = "aaaaaaaaacccddeeeeeeeegiiiiiilnnnoooooooorssstuuuuuuuyyzzz" -%}
    replace(replace(replace(translate(
        lower({{ text }}),
        '{{ lower ~ upper }}²³’‘',
        '{{ plain ~ plain }}23'''''
    ), 'æ', 'ae'), 'œ', 'oe'), 'ß', 'ss')
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

{# Folded text without spaces and punctuation; null where nothing is left. #}
{% macro title_key(folded) -%}
    {#- translate() deletes what has no counterpart, and needs no escapes -#}
    {%- set punctuation = "\t!\"#$%()*+,-./:;<=>?@[]^_`{|}~"
        ~ "\u00a0\u00a1\u00ab\u00b7\u00bb\u00bf\u2009\u200b\u2010\u2011\u2012"
        ~ "\u2013\u2014\u201c\u201d\u2022\u2026\u202f\u3000\uff01\uff0c\uff1a"
        ~ "\uff1f" -%}
    nullif(translate(
        replace({{ folded }}, '&', 'and'), ' ''{{ punctuation }}', ''
    ), '')
{%- endmacro %}
