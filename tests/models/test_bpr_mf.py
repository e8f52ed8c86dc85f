"""BPRMF."""

from typing import Any

from recsys.splits import Split
from recsys.testing import ModelContract


class TestContract(ModelContract):
    def config(self, split: Split) -> dict[str, Any]:
        return {
            "_target_": "recsys.models.bpr_mf.BPRMF",
            "num_items": split.num_items,
            "num_users": len(split.users),
            "embedding_dim": 8,
            "learning_rate": 0.05,
        }
