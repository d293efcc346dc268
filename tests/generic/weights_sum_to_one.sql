{#
    The weights of each key sum to 1, so that weighted measures add up to the
    unweighted total. A weight is cut off after 12 digits, hence the tolerance.
#}
{% test weights_sum_to_one(model, key, weight="weight") %}

    select
        {{ key }},
        sum({{ weight }}) as total_weight
    from {{ model }}
    group by {{ key }}
    having abs(sum({{ weight }}) - 1) > 0.000001

{% endtest %}
