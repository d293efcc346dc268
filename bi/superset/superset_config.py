"""Superset's settings. Addresses and secrets come from `marquee superset`, by the environment."""

import os

SECRET_KEY = os.environ["MARQUEE_SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["MARQUEE_SUPERSET_METADATA"]

APP_NAME = "Marquee"
LOG_LEVEL = "WARNING"
RATELIMIT_STORAGE_URI = "memory://"
# One process for a few people, so what it remembers may stay in it; data for a minute only, for
# `dbt build` may have changed them.
CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 3600}
DATA_CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 60}
