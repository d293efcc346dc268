{#
    On Spark raw tables come as Parquet: `marquee export raw --to spark` writes them
    where `spark.marquee.raw` in the profile says, and the next run takes them into
    tables of the catalog. Without that setting they are there by other means. Those
    that a lake has are read there: `spark.marquee.lake` names its catalog.
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
    {%- set declared = [] -%}
    {%- for source in graph.sources.values() -%}
        {%- do declared.append(source.schema ~ "." ~ source.identifier) -%}
    {%- endfor -%}
    {%- set schemas = [] -%}
    {%- for name in take_lake_tables(declared) -%}
        {%- do declared.remove(name) -%}
    {%- endfor -%}
    {%- set folder = raw_files() -%}
    {%- if folder is none -%}
        {{- return("") -}}
    {%- endif -%}
    {%- do run_query(
        "create or replace temporary view raw_manifest using json options (path "
        ~ sql_text(folder ~ "/manifest.json") ~ ", multiLine 'true')"
    ) -%}
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

{# Have views show the tables of the lake, where there is one; returns which. #}
{% macro take_lake_tables(declared) -%}
    {%- set lake, taken = spark_setting("spark.marquee.lake"), [] -%}
    {%- if lake is none -%}
        {{- return(taken) -}}
    {%- endif -%}
    {%- for (schema,) in run_query("show namespaces in " ~ lake) -%}
        {%- for row in run_query("show tables in " ~ lake ~ "." ~ schema)
            if schema ~ "." ~ row[1] in declared -%}
            {%- set relation = api.Relation.create(schema=schema, identifier=row[1], type="view") -%}
            {%- set there = adapter.get_relation(none, schema, row[1]) -%}
            {%- if not taken -%}
                {%- do create_schema(relation.without_identifier()) -%}
            {%- endif -%}
            {%- if there is not none and there.type == "table" -%}
                {%- do adapter.drop_relation(there) -%}
            {%- endif -%}
            {# anew each time, for its columns may be more #}
            {%- do run_query(
                "create or replace view " ~ relation ~ " as select * from "
                ~ lake ~ "." ~ schema ~ "." ~ row[1]
            ) -%}
            {%- do adapter.cache_added(relation) -%}
            {%- do taken.append(schema ~ "." ~ row[1]) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{- return(taken) -}}
{%- endmacro %}

{# The copy that a raw table is from; none where there is no such table. #}
{% macro copy_taken(relation) -%}
    {%- set there = adapter.get_relation(none, relation.schema, relation.identifier) -%}
    {%- if there is not none and there.type == "view" -%}
        {# of a lake that is read no longer #}
        {%- do adapter.drop_relation(there) -%}
    {%- endif -%}
    {%- if there is none or there.type == "view" -%}
        {{- return(none) -}}
    {%- endif -%}
    {{- return(run_query(
        "show tblproperties " ~ relation ~ " ('marquee.copy')"
    ).rows[0][1]) -}}
{%- endmacro %}

{# The folder of the copies, as the profile says; none where it does not. #}
{% macro raw_files() -%}
    {{- return(spark_setting("spark.marquee.raw")) -}}
{%- endmacro %}

{# A setting of the session, as the profile says; none where it does not. #}
{% macro spark_setting(name) -%}
    {%- set value = run_query("set " ~ name).rows[0][1] -%}
    {{- return(none if value in ("", "<undefined>") else value) -}}
{%- endmacro %}
