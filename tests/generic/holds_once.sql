{#
    Exactly one row is true, such as the one unknown member of a dimension, that
    facts without the attribute point to.
#}
{% test holds_once(model, column_name) %}

    select count(*) as true_count
    from {{ model }}
    where {{ column_name }}
    having count(*) != 1

{% endtest %}
