"""What made-up transactions are made of.

Weights are whole numbers, so that a seed gives the same file on every machine.
"""

from __future__ import annotations

STATUSES = {"APPROVED": 75, "DECLINED": 10, "PENDING": 10, "REFUNDED": 5}
PAYMENT_METHODS = {"card": 70, "wallet": 20, "bank_transfer": 10}
CITIES = {
    "Paris": 40,
    "Marseille": 16,
    "Lyon": 14,
    "Toulouse": 10,
    "Nice": 8,
    "Nantes": 7,
    "Bordeaux": 5,
}


MERCHANTS = {  # (merchant, category): weight
    ("Carrefour", "grocery"): 26,
    ("Carrefour", "health"): 4,
    ("Carrefour", "electronics"): 2,
    ("Amazon", "electronics"): 9,
    ("Amazon", "fashion"): 4,
    ("Amazon", "entertainment"): 4,
    ("Amazon", "grocery"): 3,
    ("Amazon", "health"): 2,
    ("Uber", "travel"): 8,
    ("Uber", "restaurants"): 12,
    ("Fnac", "entertainment"): 5,
    ("Fnac", "electronics"): 4,
    ("Airbnb", "travel"): 5,
    ("Zara", "fashion"): 7,
    ("Decathlon", "fashion"): 2,
    ("Decathlon", "health"): 3,
}


# Quintiles of amounts in euro cents, by category: a fifth of the rows lies between two neighbours,
# evenly. All from 5 to 750 EUR.
AMOUNTS = {
    "grocery": (500, 1_400, 2_900, 5_200, 9_800, 32_000),
    "restaurants": (500, 1_100, 1_900, 3_100, 5_400, 18_000),
    "entertainment": (500, 1_200, 2_200, 3_900, 7_500, 30_000),
    "health": (500, 1_300, 2_400, 4_500, 9_000, 40_000),
    "fashion": (900, 2_600, 4_900, 8_400, 15_000, 60_000),
    "travel": (800, 2_200, 6_000, 14_000, 30_000, 75_000),
    "electronics": (1_000, 4_500, 11_000, 22_000, 42_000, 75_000),
}


WEEKDAYS = (90, 88, 92, 100, 128, 150, 108)  # Monday first
MONTHS = (96, 90, 95, 96, 99, 102, 104, 84, 98, 100, 118, 142)
HOURS = (8, 5, 3, 2, 2, 4, 12, 28, 44, 52, 60, 72, 92, 80, 62, 60, 66, 82, 100, 96, 78, 56, 34, 18)
OFFSETS = {"Z": 88, "+01:00": 5, "+02:00": 4, "-05:00": 2, "+05:30": 1}  # of event_ts as written
USERS = 20_000
