"""What objects of ours say of themselves in a line, and in a notebook."""

from recsys.evaluation.ranking import evaluate
from recsys.models import Popularity
from recsys.summary import Summarised
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard


class Shop(Summarised):
    def summary(self) -> dict[str, object]:
        return {"name": "<b>\x1b[31m", "events": 12345, "share": 0.25}


def test_one_line_and_a_table_without_markup_of_the_log() -> None:
    assert repr(Shop()) == "Shop(name=<b>␛[31m, events=12,345, share=0.2500)"
    page = Shop()._repr_html_()
    assert "<b>" not in page
    assert page.count("<tr>") == 3
    assert "&lt;b&gt;" in page


def test_logs_splits_and_evaluations_say_their_sizes() -> None:
    split = last_basket(log := checkerboard())
    result = evaluate(Popularity().fit(split), split.test)
    assert repr(log).startswith(f"EventLog(name=checkerboard, events={log.num_events:,}, users=60")
    assert "item columns=item_id, colour, title, text" in repr(log)
    assert repr(split) == (
        "Split(log=checkerboard, users=60, items=40, train users=60, validation users=60, "
        "test users=60)"
    )
    mean = result.means["recall@10"]
    error = result.per_user["recall@10"].std() / 60**0.5
    assert f"recall@10={mean:.4f} ± {error:.4f}" in repr(result)
    assert f"coverage@10={result.means['coverage@10']:.4f}," in repr(result)
