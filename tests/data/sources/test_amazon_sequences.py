import pytest

from recsys.data.sources import amazon_sequences
from recsys.log.event_log import ITEM, TIME, USER


def test_beauty(publish) -> None:
    publish(amazon_sequences, "BEAUTY_SEQUENCES", "2 3 1\n1 1 2 3\n")
    items = "item_id\tasin\ttitle\tattributes\tidgenrec_keywords\n"
    items += '1\tB1\tLacquer, 0.5"\tOPI | Nails\tx\n2\tB2\t\tNails\tx\n3\tB3\tBalm\tFace\t\n'
    publish(amazon_sequences, "BEAUTY_ITEMS", items)
    publish(amazon_sequences, "BEAUTY_USERS", "user_id\treviewer_id\n1\tA1\n2\tA2\n")
    log = amazon_sequences.beauty()
    assert log.events.select(USER, ITEM, TIME).rows() == [
        (1, 1, 0),
        (1, 2, 1),
        (1, 3, 2),
        (2, 3, 0),
        (2, 1, 1),
    ]
    assert log.items.select(ITEM, "asin", "title", "text").rows() == [
        (1, "B1", 'Lacquer, 0.5"', 'Lacquer, 0.5". OPI Nails'),
        (2, "B2", None, "Nails"),
        (3, "B3", "Balm", "Balm. Face"),
    ]
    assert log.items["attributes"].to_list() == [["OPI", "Nails"], ["Nails"], ["Face"]]
    assert log.users.rows() == [(1, "A1"), (2, "A2")]


def test_scientific_joins_history_and_target(publish) -> None:
    lines = "user_id:token\titem_id_list:token_seq\titem_id:token\n0\t2 0\t1\n1\t1\t1\n"
    publish(amazon_sequences, "SCIENTIFIC_TEST", lines)
    text = "item_id:token\ttext:token_seq\nB2\tFoil. Industrial & Scientific Lab. Acme. \n"
    text += (
        "B0\tYeast - 1 oz. . LD Carlson. \nB1\tTape 3.5 in. Industrial & Scientific Tapes. 3M. \n"
    )
    publish(amazon_sequences, "SCIENTIFIC_TEXT", text)
    publish(amazon_sequences, "SCIENTIFIC_ITEMS", "B0\t0\nB1\t1\nB2\t2\n")
    publish(amazon_sequences, "SCIENTIFIC_USERS", "A0\t0\nA1\t1\n")
    log = amazon_sequences.scientific()
    expected = [(0, 2, 0), (0, 0, 1), (0, 1, 2), (1, 1, 0), (1, 1, 1)]
    assert log.events.select(USER, ITEM, TIME).rows() == expected
    assert log.items.select(ITEM, "asin", "title").rows() == [
        (0, "B0", "Yeast - 1 oz"),
        (1, "B1", "Tape 3.5 in"),
        (2, "B2", "Foil"),
    ]
    assert log.items["text"][2] == "Foil. Industrial & Scientific Lab. Acme."
    assert log.users["reviewer_id"].to_list() == ["A0", "A1"]


@pytest.mark.data
def test_published_sizes(public_data) -> None:
    beauty = amazon_sequences.beauty()
    assert (beauty.num_events, len(beauty.users), len(beauty.items)) == (198_502, 22_363, 12_101)
    assert beauty.items["title"].null_count() == 7
    science = amazon_sequences.scientific()
    assert (science.num_events, len(science.users), len(science.items)) == (59_384, 8_442, 4_385)
    assert science.items.null_count().row(0) == (0,) * len(science.items.columns)
