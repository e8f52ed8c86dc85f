import hashlib
from pathlib import Path

import numpy as np
import pytest

from recsys.data.sources import checkins
from recsys.data.sources.files import PublicFile
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, TIME, USER

VISITS = np.array([[1, 2, 30], [1, 1, 5], [2, 3, 9], [2, 1, 9]], dtype=np.int32)
# The first two lie 220 m apart in one square kilometre, the third 11 km further north.
PLACES = np.array([[1, 40.7340, -74.0], [2, 40.7360, -74.0], [3, 40.83, -74.0]])


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def put(visits: np.ndarray = VISITS, places: np.ndarray = PLACES) -> None:
        monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
        for name, table in {"VISITS": visits, "PLACES": places}.items():
            file = getattr(checkins, name)
            path = tmp_path / file.path
            path.parent.mkdir(exist_ok=True)
            np.save(path, table)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            monkeypatch.setattr(checkins, name, PublicFile(file.path, file.origin, digest))

    return put


def test_visits_in_order_and_places_with_coordinates(published) -> None:
    published()
    log = checkins.checkins()
    assert log.events.select(USER, ITEM, TIME).rows() == [
        (1, 1, 5),
        (1, 2, 30),
        (2, 3, 9),
        (2, 1, 9),
    ]
    assert log.items.rows(named=True)[2] == {ITEM: 3, "latitude": 40.83, "longitude": -74.0}


def test_cells_hold_the_places_near_one_another(published) -> None:
    published()
    log = checkins.checkins(cell_km=1.0)
    assert log.events[ITEM].to_list() == [1, 1, 2, 1]
    assert log.items.rows() == [(1, pytest.approx(40.735), -74.0), (2, 40.83, -74.0)]


def test_a_cell_has_a_size(published) -> None:
    published()
    with pytest.raises(ConfigError, match=r"cell_km=0\.0: expected above 0"):
        checkins.checkins(cell_km=0.0)


def test_another_table_is_one_line(published) -> None:
    published(visits=VISITS[:, :2])
    with pytest.raises(DataError, match=r"NYC\.npy: int32 of shape \(4, 2\); expected int32"):
        checkins.checkins()


def test_nothing_is_unpickled(published) -> None:
    published(visits=np.array([[object()] * 3]))
    with pytest.raises(DataError, match=r"NYC\.npy cannot be read"):
        checkins.checkins()


@pytest.mark.data
def test_published_size(public_data) -> None:
    log = checkins.checkins()
    assert (log.num_events, len(log.users), len(log.items)) == (147_938, 1_083, 5_135)
    assert len(checkins.checkins(cell_km=1.0).items) == 859
