"""The table of `README.md` here from the record in `results/`.

python -m benchmarks.language.report
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.language.pre_split import RESULT
from recsys.files import write_text

PAGE = """\
# Korean in tokens

Made by `python -m benchmarks.language.report` from the record that
`python -m benchmarks.language.pre_split` writes. {train} sentences of our own
(`benchmarks/language/sentences.py`) train a tokenizer and a decoder of two layers of 64 dimensions,
in the same batches whatever the tokens are; {validation} choose the epoch, {test} are tested. Bits
are of all tokens of a text, its end among them, over its characters: perplexities of different
tokens do not compare. Means of {seeds} seeds, with their standard deviation. The sentences come
from a small grammar, so the bits are low, and differences say what the cuts do for regular endings
and particles, not for Korean at large.

| vocabulary | `pre_split` | characters a token | bits a character | epochs |
| --- | --- | --- | --- | --- |
{rows}

{stamp}
"""


def page(record: dict[str, Any]) -> str:
    """The page of a record."""
    seeds = len(record["training"]["seeds"])
    stamp = f"Commit {record['commit'][:12]}, {record['date'][:10]}, {record['hardware']['cpu']}."
    rows = "\n".join(_row(row) for row in record["rows"])
    return PAGE.format(**record["sentences"], seeds=seeds, rows=rows, stamp=stamp)


def _row(row: dict[str, Any]) -> str:
    bits = f"{row['bits_per_character']:.3f} ± {row['spread']:.3f}"
    epochs = ", ".join(str(run["epochs"]) for run in row["seeds"])
    token = f"{row['characters_per_token']:.2f}"
    return f"| {row['vocab_size']:,} | `{row['pre_split']}` | {token} | {bits} | {epochs} |"


if __name__ == "__main__":
    write_text(RESULT.parents[1] / "README.md", page(json.loads(RESULT.read_text())))
