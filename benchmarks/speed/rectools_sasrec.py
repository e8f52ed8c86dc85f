"""Time RecTools' own training of SASRec on a file of events; print one JSON object.

Runs in an environment of its own, never in that of `recsys`:

    python3.11 -m venv rectools_env
    rectools_env/bin/pip install 'rectools[torch]==0.19.0' torch==2.13.0
    rectools_env/bin/python benchmarks/speed/rectools_sasrec.py events.csv --max-length 50

`benchmarks.speed.sasrec` runs it so beside our training.

The file has the columns user_id, item_id and datetime (a day for each place in a user's order).
Everything is RecTools' default but the sizes, which are given; dropout .2, AdamW and its learning
rate .001 are its defaults too. An epoch is timed from its start to that of the next one.
"""

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet


class Clock(Callback):
    """Seconds of each epoch, to the start of the next, and its mean training loss."""

    def __init__(self):
        self.starts, self.losses, self.batches = [], [], []

    def on_train_epoch_start(self, trainer, module):
        self.starts.append((time.perf_counter(), time.process_time()))
        self.batches = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.batches.append((float(outputs["loss"].detach()), len(batch["x"])))

    def on_train_epoch_end(self, trainer, module):
        users = sum(n for _, n in self.batches)
        self.losses.append(sum(loss * n for loss, n in self.batches) / users)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events")
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-heads", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    seed_everything(0, verbose=False)
    events = pd.read_csv(options.events, parse_dates=[Columns.Datetime])
    events[Columns.Weight] = 1.0

    def trainer():
        return Trainer(
            max_epochs=options.epochs + 1,
            accelerator="cpu",
            devices=1,
            callbacks=[Clock()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=options.num_layers,
        n_heads=options.num_heads,
        n_factors=options.dim,
        session_max_len=options.max_length,
        batch_size=options.batch_size,
        loss="softmax",
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(events))
    # RecTools trains with a copy of the trainer and its callbacks.
    (clock,) = (c for c in model.fit_trainer.callbacks if isinstance(c, Clock))
    wall, cpu = zip(*clock.starts, strict=True)
    print(
        json.dumps(
            {
                "wall": np.diff(wall).tolist(),
                "cpu": np.diff(cpu).tolist(),
                "losses": clock.losses,
                "threads": torch.get_num_threads(),
                "parameters": sum(p.numel() for p in model.torch_model.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()
