{#
    On Spark raw tables come as Parquet: `marquee export raw --to spark` writes them
    where `spark.marquee.raw` in the profile says, and the next run takes them into
    tables of the catalog. Without that setting they are there by other means.
#}

{# Before every run: take a newer copy of the raw tables in, where there is one. #}
{% macro take_raw_files() -%}
    {%- if execute and flags.WHICH in ("build", "run", "test", "seed", "snapshot", "retry") -%}
        {{ return(adapter.dispatch("take_raw_files")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__take_raw_files() -%}{%- endmacro %}

{#
    Every table of the catalog says from which copy it is, so that a run which was
    interrupted goes on where it stopped, and one after it has nothing to do.
#}
{% macro spark__take_raw_files() -%}
    {%- set folder = raw_files() -%}
    {%- if folder is none -%}
        {{- return("") -}}
    {%- endif -%}
    {%- do run_query(
        "create or replace temporary view raw_manifest using json options (path "
        ~ sql_text(folder ~ "/manifest.json") ~ ", multiLine 'true')"
    ) -%}
    {%- set declared = [] -%}
    {%- for source in graph.sources.values() -%}
        {%- do declared.append(source.schema ~ "." ~ source.identifier) -%}
    {%- endfor -%}
    {%- set schemas = [] -%}
    {%- for version, schema, name, path in run_query(
        "select version, table.schema, table.name, table.files[0].path from"
        ~ " (select version, explode(tables) as table from raw_manifest)"
    ) if schema ~ "." ~ name in declared -%}
        {%- set relation = api.Relation.create(schema=schema, identifier=name, type="table") -%}
        {%- if schema not in schemas -%}
            {%- do create_schema(relation.without_identifier()) -%}
            {%- do schemas.append(schema) -%}
        {%- endif -%}
        {%- if copy_taken(relation) != version -%}
            {%- do run_query(
                "create or replace table " ~ relation ~ " using iceberg"
                ~ " tblproperties ('marquee.copy' = " ~ sql_text(version) ~ ")"
                ~ " as select * from parquet.`" ~ folder ~ "/" ~ path ~ "`"
            ) -%}
            {%- do adapter.cache_added(relation) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

{# The copy that a raw table is from; none where there is no such table. #}
{% macro copy_taken(relation) -%}
    {%- if adapter.get_relation(none, relation.schema, relation.identifier) is none -%}
        {{- return(none) -}}
    {%- endif -%}
    {{- return(run_query(
        "show tblproperties " ~ relation ~ " ('marquee.copy')"
    ).rows[0][1]) -}}
{%- endmacro %}

{# The folder of the copies, as the profile says; none where it does not. #}
{% macro raw_files() -%}
    {%- set folder = run_query("set spark.marquee.raw").rows[0][1] -%}
    {{- return(none if folder in ("", "<undefined>") else folder) -}}
{%- endmacro %}
