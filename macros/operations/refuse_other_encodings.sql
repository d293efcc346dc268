{#
    Before every run: texts are normalised in Unicode, which PostgreSQL does in a
    database in UTF8 only. marquee refuses another one before anything lands.
#}
{% macro refuse_other_encodings() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("refuse_other_encodings")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__refuse_other_encodings() -%}{%- endmacro %}

{% macro postgres__refuse_other_encodings() -%}
    {%- set found = run_query("select current_setting('server_encoding')") -%}
    {%- set encoding = found.columns[0].values()[0] -%}
    {%- if encoding != "UTF8" -%}
        {%- do exceptions.raise_compiler_error(
            "The database " ~ target.dbname ~ " is in " ~ encoding
            ~ ", which cannot hold every letter.\nMake one in UTF8, and name it in"
            ~ " profiles.yml: createdb -E UTF8 -T template0 " ~ target.dbname ~ "_utf8"
        ) -%}
    {%- endif -%}
{%- endmacro %}
