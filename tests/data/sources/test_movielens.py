from datetime import datetime

import pytest

from recsys.data.sources import movielens
from recsys.log.event_log import ITEM, TIME, USER, VALUE
from recsys.log.filters import filtered

RATINGS = """user_id:token\titem_id:token\trating:float\ttimestamp:float
2\t10\t3\t881250949
2\t9\t5\t881250949
1\t9\t4\t881250000
"""
FILMS = """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
9\t"Quoted", The\t1995\tDrama Romance
10\tOther (V)\tV\tunknown
"""
USERS = """user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
1\t24\tM\ttechnician\t05711
2\t53\tF\tother\tV3N4P
"""


def test_ratings_films_and_users(publish) -> None:
    for name, content in (("RATINGS", RATINGS), ("FILMS", FILMS), ("USERS", USERS)):
        publish(movielens, name, content)
    log = movielens.ml100k()
    # Equal times keep the order of the file.
    assert log.events.select(USER, ITEM, VALUE).rows() == [(1, 9, 4.0), (2, 10, 3.0), (2, 9, 5.0)]
    assert log.events[TIME][0] == datetime(1997, 12, 4, 15, 40)
    assert log.items.rows(named=True) == [
        {
            ITEM: 9,
            "title": '"Quoted", The',
            "text": '"Quoted", The 1995 Drama Romance',
            "year": 1995,
            "genres": ["Drama", "Romance"],
        },
        {
            ITEM: 10,
            "title": "Other (V)",
            "text": "Other (V) unknown",
            "year": None,
            "genres": ["unknown"],
        },
    ]
    assert log.users.rows() == [(1, 24, "M", "technician", "05711"), (2, 53, "F", "other", "V3N4P")]


@pytest.mark.data
def test_published_size(public_data) -> None:
    log = movielens.ml100k()
    assert (log.num_events, len(log.users), len(log.items)) == (100_000, 943, 1_682)
    assert log.items["year"].null_count() == 2
    assert filtered(log, first_only=True, min_user_events=3).num_events == 100_000
