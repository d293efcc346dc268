"""Superset's settings. Addresses and secrets come from `marquee superset`, by the environment."""

import os

SECRET_KEY = os.environ["MARQUEE_SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["MARQUEE_SUPERSET_METADATA"]

APP_NAME = "Marquee"
LOG_LEVEL = "ERROR"
RATELIMIT_STORAGE_URI = "memory://"
# One process for a few people, so what it remembers may stay in it; data for a minute only, for
# `dbt build` may have changed them.
CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 3600}
DATA_CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 60}
# The pages ask nothing of other sites: no fonts, no maps, no pixel that counts users.
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'", "data:"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,  # it is served on this machine alone
    "session_cookie_secure": False,
}
# A text that a spreadsheet would take for a formula gets a quote in front, which Superset does in
# all downloads but those that it streams. None is long enough to be streamed.
CSV_STREAMING_ROW_THRESHOLD = 1_000_000_000
