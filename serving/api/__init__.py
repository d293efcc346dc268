"""The marts over HTTP: ``marquee api serve``, made from dbt's manifest.

A request passes, in this order: ``gate`` (key, rate limit), ``making`` and ``answers`` (the cache;
equal requests share one query), ``shared_answers`` (Redis, by ``redis_link``), ``query`` or, for
metrics, ``figures`` (parameters to SQL), ``reading`` (SQL to bytes). What is no hot path is
FastAPI's: ``routes``. ``builds`` follows the builds of the marts: they decide what the cache holds.

``mcp_server`` gives the same to assistants, by ``making``; its tools are in ``mcp_tools``.
"""
