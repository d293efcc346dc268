{#
    Hook before the step of a table that each step fills anew: delete all rows. The
    table stays, and so do views that read it; readers see the old rows or the new
    ones. With --empty the step would insert nothing, so nothing is deleted. `after`
    is what has to be filled before this table.
#}
{% macro delete_all_before_step(after=none) -%}
    {%- if is_incremental() and not flags.EMPTY and replace_all() == "append" -%}
        delete from {{ this }}
    {%- endif -%}
{%- endmacro %}

{#
    Whether this model is such a table, and stands there with the columns that it
    is to have: each step is a full refresh then. dbt's own drops the table, and
    with it all views that read it, those too that a run does not select.
#}
{% macro is_filled_anew_in_place() -%}
    {%- set hooks = model.config.get("pre-hook", []) | map(attribute="sql") | join -%}
    {%- if not execute or "delete_all_before_step" not in hooks -%}
        {{- return(false) -}}
    {%- endif -%}
    {%- if "filled_anew_in_place" not in context -%}
        {%- set standing = load_cached_relation(this) -%}
        {%- set stays = [] -%}
        {%- if standing is not none and standing.is_table -%}
            {%- set draft = make_intermediate_relation(this).incorporate(type="view") -%}
            {%- do drop_relation_if_exists(load_cached_relation(draft)) -%}
            {%- call statement("draft") -%}
                {{ get_create_view_as_sql(draft, model.compiled_code) }}
            {%- endcall -%}
            {%- if keeps_columns(standing, draft) and keeps_columns(draft, standing) -%}
                {%- do stays.append(this) -%}
            {%- endif -%}
            {%- do adapter.drop_relation(draft) -%}
        {%- endif -%}
        {%- do context.update({"filled_anew_in_place": stays != []}) -%}
    {%- endif -%}
    {{- return(context["filled_anew_in_place"]) -}}
{%- endmacro %}
