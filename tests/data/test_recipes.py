"""Well-known logs in the form of their originals: rows of the same schema, read and guessed."""

import gzip
import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from recsys.cli import guess as guessed
from recsys.cli.compose import compose
from recsys.data.tables.guess import guess
from recsys.log.event_log import BASKET, EventLog
from recsys.run.log import read

Run = Callable[..., tuple[int, str, str]]
NUM_USERS, EACH = 8, 8


class Event(NamedTuple):
    """The n-th event of a user."""

    user: int
    item: int
    n: int
    time: datetime

    @property
    def seconds(self) -> int:
        return int(self.time.timestamp())

    @property
    def order(self) -> int:
        """A number for two of a user's events."""
        return self.user * 10 + self.n // 2


def happened() -> Iterator[Event]:
    start = datetime(2019, 3, 1, 8, 0, 30, tzinfo=UTC)
    for user in range(1, NUM_USERS + 1):
        for n in range(EACH):
            yield Event(
                user, 10 + (user + n) % 12, n, start + timedelta(days=13 * (n // 2), hours=user)
            )


EVENTS = list(happened())
ITEMS = sorted({event.item for event in EVENTS})
USERS = range(1, NUM_USERS + 1)


def lines(form: Callable[..., str], of: object = EVENTS) -> str:
    return "".join(f"{form(row)}\n" for row in of)  # type: ignore[attr-defined]


def reviews(e: Event) -> str:
    review = {"rating": 4.0, "title": "Good", "text": f"said {e.user}", "images": []}
    ids = {"asin": f"B{e.item}", "parent_asin": f"B{e.item}", "user_id": f"A{e.user}"}
    return json.dumps({**review, **ids, "timestamp": e.seconds * 1000, "helpful_vote": 0})


def metadata(item: int) -> str:
    about: dict[str, object] = {
        "main_category": "Toys",
        "title": f"Toy {item}",
        "features": [],
        "price": None,
    }
    return json.dumps({**about, "details": {}, "parent_asin": f"B{item}", "store": None})


KINDS = ("view", "view", "addtocart")
LAYOUTS: dict[str, dict[str, str]] = {
    "ml1m": {
        "ml-1m/ratings.dat": lines(lambda e: f"{e.user}::{e.item}::{e.n}::{e.seconds}"),
        "ml-1m/movies.dat": lines(lambda i: f"{i}::Amélie {i} (2001)::Comedy|Drama", ITEMS),
        "ml-1m/users.dat": lines(lambda u: f"{u}::F::25::7::02139", USERS),
    },
    "ml10m": {
        "ml-10M100K/ratings.dat": lines(lambda e: f"{e.user}::{e.item}::{e.n}.5::{e.seconds}"),
        "ml-10M100K/movies.dat": lines(lambda i: f"{i}::Amélie {i} (2001)::Comedy|Drama", ITEMS),
    },
    "ml25m": {
        "ml-25m/ratings.csv": "userId,movieId,rating,timestamp\n"
        + lines(lambda e: f"{e.user},{e.item},{e.n}.0,{e.seconds}"),
        "ml-25m/movies.csv": "movieId,title,genres\n" + lines(lambda i: f'{i},"F, {i}",A|B', ITEMS),
    },
    "recbole": {
        "x/x.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + lines(lambda e: f"{e.user}\t{e.item}\t3\t{e.seconds}.0"),
        "x/x.item": "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        + lines(lambda i: f'{i}\tFilm "{i}\tDrama Comedy', ITEMS),
        "x/x.user": "user_id:token\tage:token\n" + lines(lambda u: f"{u}\t{20 + u}", USERS),
    },
    "amazon2023": {
        "amazon_2023/All_Beauty.jsonl.gz": lines(reviews),
        "amazon_2023/meta_All_Beauty.jsonl.gz": lines(metadata, ITEMS),
    },
    "yoochoose": {
        "yoochoose/yoochoose-clicks.dat": lines(
            lambda e: f"{e.user},{e.time:%Y-%m-%dT%H:%M:%S}.486Z,2145{e.item},{'S' if e.n else 0}"
        ),
    },
    "retailrocket": {
        "retailrocket/events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
        + lines(lambda e: f"{e.seconds}005,{e.user},{KINDS[e.n % 3]},{e.item},"),
        "retailrocket/item_properties_part1.csv": "timestamp,itemid,property,value\n"
        + lines(lambda i: f"1550000000000,{i},790,n{i}.000\n1550000000000,{i},available,1", ITEMS),
    },
    "instacart": {
        "instacart/order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n"
        + lines(lambda e: f"{e.order},{e.item},{1 + e.n % 2},0"),
        "instacart/orders.csv": "order_id,user_id,eval_set,order_number,order_dow,"
        "order_hour_of_day,days_since_prior_order\n"
        + lines(lambda e: f"{e.order},{e.user},prior,{1 + e.n // 2},2,08,", EVENTS[::2]),
        "instacart/products.csv": "product_id,product_name,aisle_id,department_id\n"
        + lines(lambda i: f'{i},"Tea, {i}",1,2', ITEMS),
    },
    "hm": {
        "hm/transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n"
        + lines(lambda e: f"{e.time:%Y-%m-%d},c{e.user},01087{e.item},0.0{e.n + 1},2"),
        "hm/articles.csv": "article_id,product_code,prod_name,detail_desc\n"
        + lines(lambda i: f'01087{i},01087,Top {i},"A top, {i}"', ITEMS),
        "hm/customers.csv": "customer_id,FN,Active,club_member_status,age\n"
        + lines(lambda u: f"c{u},,,ACTIVE,{20 + u}", USERS),
    },
    "dunnhumby": {
        "dunnhumby/transaction_data.csv": "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,"
        "SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,COUPON_DISC,COUPON_MATCH_DISC\n"
        + lines(lambda e: f"{e.user},{e.order},{1 + e.n // 2},{e.item},1,1.39,364,-0.6,1631,1,0,0"),
        "dunnhumby/product.csv": "PRODUCT_ID,MANUFACTURER,DEPARTMENT,BRAND,COMMODITY_DESC,"
        "SUB_COMMODITY_DESC,CURR_SIZE_OF_PRODUCT\n"
        + lines(lambda i: f"{i},2,GROCERY,National,TEA,GREEN TEA {i},22 LB", ITEMS),
        "dunnhumby/hh_demographic.csv": "AGE_DESC,MARITAL_STATUS_CODE,household_key\n"
        + lines(lambda u: f"65+,A,{u}", USERS),
    },
    "lastfm1k": {
        "lastfm-dataset-1K/userid-timestamp-artid-artname-traid-traname.tsv": lines(
            lambda e: (
                f'user_00{e.user}\t{e.time:%Y-%m-%dT%H:%M:%SZ}\t\tThe "{e.item}\t\tSong {e.item}'
            )
        ),
    },
    "lastfm360k": {
        "lastfm-dataset-360K/usersha1-artmbid-artname-plays.tsv": lines(
            lambda e: f"0000{e.user}a\tmb-{e.item}\tartist {e.item}\t{40 - e.n}"
        ),
    },
    "gowalla": {
        "gowalla/loc-gowalla_totalCheckins.txt.gz": lines(
            lambda e: f"{e.user}\t{e.time:%Y-%m-%dT%H:%M:%SZ}\t30.2\t-97.{e.item}\t228{e.item}"
        ),
    },
    "rees46": {
        "rees46/2019-Oct.csv": "event_time,event_type,product_id,category_id,category_code,brand,"
        "price,user_id,user_session\n"
        + lines(
            lambda e: (
                f"{e.time:%Y-%m-%d %H:%M:%S} UTC,{KINDS[e.n % 3]},{e.item},20{e.item % 2},a.b,,"
                f"9.{e.n},{e.user},s{e.order}"
            )
        ),
    },
    "steam": {
        "steam/steam-200k.csv": lines(
            lambda e: (
                f'{e.user},"Game {e.item}, II",purchase,1.0,0\n'
                f'{e.user},"Game {e.item}, II",play,{1.5 + e.n},0'
            )
        ),
    },
}
"""Recipe -> path below `$RECSYS_DATA` -> content."""
OWN_PATHS = {"recbole": ["data.path=x/x.inter", "data.items_path=x/x.item"]}
HAVE_TITLES = {"ml1m", "ml10m", "ml25m", "amazon2023", "instacart", "hm", "dunnhumby"}
WITH_BASKETS = {"instacart", "hm", "dunnhumby"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all of the logs lie."""
    for files in LAYOUTS.values():
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            raw = content.encode("latin-1" if "ml-1m" in name else "utf-8")
            path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def the_log(name: str) -> EventLog:
    return read(compose([f"data={name}", *OWN_PATHS.get(name, [])]).data)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_reads_the_original_files(folder: Path, name: str) -> None:
    log = the_log(name)
    assert log.num_events == len(EVENTS)
    assert (len(log.users), len(log.items)) == (NUM_USERS, len(ITEMS))
    first = log.events.filter(log.events["user_id"] == log.events["user_id"][0])["item_id"]
    assert [str(item).rstrip(", I")[-1:] for item in first] == list("12345678")
    assert (BASKET in log.events.columns) == (name in WITH_BASKETS)
    if name in HAVE_TITLES:
        assert log.items["title"].null_count() == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_recipe_says_where_files_come_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    code, _, err = run("data", "describe", name, *OWN_PATHS.get(name, []))
    assert (code, err.count("\n")) == (2, 1)
    assert "get it from http" in err
    assert "RECSYS_DATA" in err


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_command_trains_a_model(folder: Path, run: Run, name: str) -> None:
    options = ["model=popularity", "task.ks=[5]", f"hydra.run.dir={folder}/run"]
    code, out, err = run("train", f"data={name}", *options, *OWN_PATHS.get(name, []))
    assert code == 0, err
    assert "run folder: " in out


OF_GUESS = {
    "ml1m": "ml-1m",
    "ml25m": "ml-25m",
    "recbole": "x",
    "amazon2023": "amazon_2023",
    "yoochoose": "yoochoose",
    "retailrocket": "retailrocket",
    "instacart": "instacart",
    "hm": "hm",
    "dunnhumby": "dunnhumby",
    "lastfm1k": "lastfm-dataset-1K",
    "gowalla": "gowalla",
    "rees46": "rees46",
}


@pytest.mark.parametrize("name", OF_GUESS)
def test_a_guess_at_the_folder_is_the_recipe(folder: Path, name: str) -> None:
    words = shlex.split(" ".join(guessed.command(guess(OF_GUESS[name]))))
    assert words[:3] == ["recsys", "train", "data=table"]
    log, expected = read(compose(words[2:]).data), the_log(name)
    assert log.events.select("user_id").equals(expected.events.select("user_id"))
    assert log.num_events == expected.num_events
    if name != "lastfm1k":  # whose artists and tracks are guessed at
        assert log.events["item_id"].equals(expected.events["item_id"])
