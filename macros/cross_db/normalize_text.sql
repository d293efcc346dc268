{#
    A text in one spelling, whoever typed it, so that two spellings that look
    alike are one merchant, brand or city; null where nothing is left. Raw tables
    keep what was sent. The rule:

    1. Unicode NFC: an e and an accent behind it become one letter.
    2. A run of white space within the text becomes one plain space, and takes
       what leaves no ink beside it along.
    3. White space and what leaves no ink go from both ends: blanks of every
       width, tabs and line ends, other control characters, zero-width spaces and
       joiners, marks of direction, byte order marks.
    4. Case is kept, unless `letters` is upper (codes: statuses, currencies) or
       lower (payment methods).

    Readers of files go by the same rule (ingestion/texts.py).
#}
{% macro normalize_text(expression, letters=none) -%}
    {%- set normalized = adapter.dispatch("normalize_text")(expression) -%}
    {{- return(letters ~ "(" ~ normalized ~ ")" if letters else normalized) -}}
{%- endmacro %}

{% macro default__normalize_text(expression) -%}
    {%- set run = "[" ~ white_space() ~ "]*[" ~ blanks() ~ "][" ~ white_space() ~ "]*" -%}
    nullif(trim(both '{{ white_space() }}' from {{
        regexp_replace_all(unicode_nfc(expression), run, " ")
    }}), '')
{%- endmacro %}

{#
    Most texts are in that spelling already, which two looks tell several times
    quicker: plain ASCII with single spaces, or any letters in NFC.
#}
{% macro postgres__normalize_text(expression) -%}
    {%- set unclean = "|  |^ | $|^$" -%}
    case
        when {{ expression }} !~ '[^!-~ ]{{ unclean }}' then {{ expression }}
        when
            is_normalized({{ expression }}, 'NFC')
            and {{ expression }}
            !~ '[{{ white_space() | replace(" ", "") }}]{{ unclean }}'
            then {{ expression }}
        else {{ default__normalize_text(expression) }}
    end
{%- endmacro %}

{# The first of these looks, for the same reason. #}
{% macro duckdb__normalize_text(expression) -%}
    case
        when regexp_matches({{ expression }}, '^[!-~]+( [!-~]+)*$')
            then {{ expression }}
        else {{ default__normalize_text(expression) }}
    end
{%- endmacro %}

{#
    The same look, which takes letters with accents in one sign, too. What it spares
    is dear: reflect() costs microseconds.
#}
{% macro spark__normalize_text(expression) -%}
    case
        when not {{ expression }} rlike '[^!-~\u00a1-\u00ac\u00ae-\u02ff ]|  |^ | $|^$'
            then {{ expression }}
        else {{ default__normalize_text(expression) }}
    end
{%- endmacro %}

{# A text in Unicode NFC; as it is on engines that have no function for it. #}
{% macro unicode_nfc(expression) -%}
    {{ return(adapter.dispatch("unicode_nfc")(expression)) }}
{%- endmacro %}

{% macro default__unicode_nfc(expression) -%}
    {{ expression }}
{%- endmacro %}

{% macro postgres__unicode_nfc(expression) -%}
    normalize({{ expression }}, nfc)
{%- endmacro %}

{% macro duckdb__unicode_nfc(expression) -%}
    nfc_normalize({{ expression }})
{%- endmacro %}

{#- of ICU, which Spark brings; it takes no null, and normalize_text makes null of nothing -#}
{% macro spark__unicode_nfc(expression) -%}
    reflect(
        'com.ibm.icu.text.Normalizer', 'compose', coalesce({{ expression }}, ''), false
    )
{%- endmacro %}

{# What normalize_text takes off the ends: white space, and all else that leaves no ink. #}
{% macro white_space() -%}
    {{- return(
        "\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\u0009\u000a\u000b\u000c\u000d\u000e\u000f"
        ~ "\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e"
        ~ "\u001f\u0020\u007f\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b"
        ~ "\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a"
        ~ "\u009b\u009c\u009d\u009e\u009f\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e"
        ~ "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e"
        ~ "\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2061\u2062\u2063\u2064"
        ~ "\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u2800\u3000\u3164\ufeff\uffa0"
        ~ "\ufff9\ufffa\ufffb"
    ) -}}
{%- endmacro %}

{# White space that parts words: all that Unicode calls so, and the separators of ASCII. #}
{% macro blanks() -%}
    {{- return(
        "\u0009\u000a\u000b\u000c\u000d\u001c\u001d\u001e\u001f\u0020\u0085\u00a0\u1680\u2000\u2001"
        ~ "\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
    ) -}}
{%- endmacro %}
