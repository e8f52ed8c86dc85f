"""Time RecBole's own full-catalogue evaluation of EASE on ml-100k; print one JSON object.

Runs in an environment of its own (Python 3.11), never in that of `recsys`:

    python3.11 -m venv recbole_env
    recbole_env/bin/pip install recbole==1.2.1 torch==2.13.0 'numpy==1.26.4' 'pandas==2.1.4'
    recbole_env/bin/python benchmarks/speed/recbole_ease.py --repeats 5 --threads 1

`benchmarks.speed.evaluation` runs it so beside our evaluation.

RecBole carries ml-100k in its package. Everything is its default (full ranking, 4,096 user x item
cells per batch, Recall, MRR, NDCG, Hit and Precision at 10, no progress bar, no GPU) except
the split: leave-one-out in order of time. EASE's regularisation is 250, RecBole's own default too.
`Trainer.evaluate` is called on the model in memory: no training and no checkpoint is timed.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import EASE
from recbole.trainer import TraditionalTrainer
from recbole.utils import init_seed


def prepare(seed):
    """RecBole's trainer with EASE fitted on the training part, and the two evaluation loaders."""
    settings = {
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
        "reg_weight": 250.0,
        "seed": seed,
        "use_gpu": False,
    }
    config = Config(model="EASE", dataset="ml-100k", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    # RecBole keeps times as float32, which merges seconds; their ranks keep the order exact.
    dataset.inter_feat["timestamp"] = dataset.inter_feat["timestamp"].rank(method="dense")
    train, validation, test = data_preparation(config, dataset)
    trainer = TraditionalTrainer(config, EASE(config, train.dataset))
    trainer.eval_collector.data_collect(train)  # what Trainer.fit does before its one empty epoch
    return trainer, {"validation": validation, "test": test}


def time_evaluation(trainer, data, repeats):
    """Seconds of each pass, wall and CPU, and the metrics of the last."""
    trainer.evaluate(data, load_best_model=False)  # warm up
    wall, cpu = [], []
    for _ in range(repeats):
        started, started_cpu = time.perf_counter(), time.process_time()
        metrics = trainer.evaluate(data, load_best_model=False)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - started_cpu)
    return {
        "users": data.sample_size,
        "seconds": wall,
        "cpu_seconds": cpu,
        "recall@10": float(metrics["recall@10"]),
        "ndcg@10": float(metrics["ndcg@10"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2020)
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole would read its own settings from it
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole writes checkpoint and TensorBoard folders where it stands
        trainer, loaders = prepare(arguments.seed)
        record = {
            "versions": {"recbole": "1.2.1", "torch": torch.__version__, "numpy": np.__version__},
            "threads": torch.get_num_threads(),
        }
        for part, data in loaders.items():
            record[part] = time_evaluation(trainer, data, arguments.repeats)
        os.chdir("/")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
