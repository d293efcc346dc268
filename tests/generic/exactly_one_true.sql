{#
    Exactly one row is true, such as the one unknown member of a dimension, that
    facts without the attribute point to. With --empty dbt reads no row.
#}
{% test exactly_one_true(model, column_name) %}

    select count(*) as true_count
    from {{ model }}
    where {{ column_name }}
    having count(*) {{ ">" if flags.EMPTY else "!=" }} 1

{% endtest %}
