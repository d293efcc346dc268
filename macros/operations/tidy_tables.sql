{#
    On Spark each build leaves a version of each table that it changes, and its files.
    `dbt run-operation tidy_tables --target spark` joins small files, and removes what
    is older than some days: `--args '{days: 30}'`. The last version always stays.
#}
{% macro tidy_tables(days=7) -%}
    {{ return(adapter.dispatch("tidy_tables")(days)) }}
{%- endmacro %}

{% macro default__tidy_tables(days) -%}
    {%- do log(target.type ~ " looks after its tables by itself.", info=true) -%}
{%- endmacro %}

{% macro spark__tidy_tables(days) -%}
    {%- set catalog = run_query("select current_catalog()").rows[0][0] -%}
    {%- set before = modules.datetime.datetime.now(modules.pytz.utc)
        - modules.datetime.timedelta(days=days) -%}
    {%- set schemas = (graph.nodes.values() | map(attribute="schema") | list)
        + (graph.sources.values() | map(attribute="schema") | list) -%}
    {%- for schema in schemas | unique | sort if adapter.check_schema_exists(none, schema) -%}
        {%- for row in run_query("show tables in " ~ schema) -%}
            {%- set table = sql_text(schema ~ "." ~ row[1]) -%}
            {%- set joined = run_query(
                "call " ~ catalog ~ ".system.rewrite_data_files(table => " ~ table ~ ")"
            ).rows[0] -%}
            {%- set removed = run_query(
                "call " ~ catalog ~ ".system.expire_snapshots(table => " ~ table
                ~ ", older_than => timestamp '" ~ before.strftime("%Y-%m-%d %H:%M:%S.%f") ~ "')"
            ).rows[0] -%}
            {%- do log(
                schema ~ "." ~ row[1] ~ ": " ~ joined[0] ~ " files are "
                ~ joined[1] ~ " now, " ~ removed[0] ~ " old ones removed",
                info=true
            ) -%}
        {%- endfor -%}
    {%- endfor -%}
{%- endmacro %}
