"""How fast is attribute, beside Bergson's own commands?

    .venv/bin/python benchmarks/attribute.py --model runs/demo/first --data runs/demo/data [--rows 500] [--rounds 3]

The same adapter, rows, queries, projection, loss, cosines and number format for both, in turns, in one process, on the device that
the machine has: ours is the stage, from the files to its files; Bergson's are its commands `build`, with the mean of the queries,
and `score`, as their command line runs them, over the same tokens and labels. Imports, which each of its commands would pay
anew, are left out of both. Bergson refuses batches longer than the model's context, so it has those; ours has --forward-tokens.

The floor is the products of forward and backward passes, for the tokens and labels that need them and without padding, and of
the projected gradients, at the speed of a product of two square matrices, or the reading of the weights there and back once a
batch at the speed of a copy, if that takes longer. Seconds are the clock's and, in brackets, the processor's.

A line tells the rank correlation of both scores and their largest difference. The last line is the median of our seconds over
Bergson's, round by round: below 1 is faster than Bergson.
"""

import argparse
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from side_by_side import Seconds, in_turns, least_seconds, print_table, ratio

from playpen import artifact
from playpen.flops import row_gradients, step
from playpen.machine import Machine
from playpen.matrix_weights import read_adapter, read_weights
from playpen.models import load_base, model_files
from playpen.stages import attribute
from playpen.tables import read_metrics, read_table, write_json, write_table


@dataclass(frozen=True)
class Work:
    """What both work on."""

    config: attribute.Config
    machine: Machine
    folder: Path
    """Of Bergson's files: `adapter`, and the data sets `pool` and `query`."""
    context: int
    """Tokens that the model reads."""
    tables: dict[str, pd.DataFrame]
    """The rows of `pool` and `query`."""

    @property
    def tokens(self) -> int:
        """Tokens of the scored rows and of the queries."""
        return sum(int(table["num_tokens"].sum()) for table in self.tables.values())


def open_work(call: argparse.Namespace, folder: Path) -> Work:
    """Write the rows for us, and rows and adapter as Bergson wants them."""
    from datasets import Dataset

    data, model = (artifact.find_artifact(path) for path in (call.data, call.model))
    tables = {"pool": read_table(data, "pool").head(call.rows), "query": read_table(data, "query")}
    for name, table in tables.items():
        write_table(folder / "data" / f"{name}.parquet", table)
        lists = {column: table[column].tolist() for column in ("input_ids", "labels")}
        Dataset.from_dict({**lists, "length": table["num_tokens"].tolist()}).save_to_disk(folder / name)
    write_json(folder / "data" / "metrics.json", {"tokenizer": read_metrics(data)["tokenizer"]})
    context = write_adapter(model, folder / "adapter")
    config = attribute.Config(model=str(model), data=str(folder / "data"), unit_normalize=True)
    return Work(config, replace(Machine(), forward_tokens=call.forward_tokens), folder, context, tables)


def write_adapter(model: Path, out: Path) -> int:
    """Write an adapter's directory that Bergson opens; return the tokens that the model reads."""
    files = model_files(model)
    if files.adapter is None:
        raise SystemExit(f"{model} has no adapter: give an artifact of finetune")
    shutil.copytree(files.adapter, out)
    shutil.copyfile(files.base / "config.json", out / "config.json")
    settings = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(files.base)}))
    return int(json.loads((out / "config.json").read_text())["max_position_embeddings"])


def ours(work: Work, out: Path) -> None:
    """Run our stage."""
    out.mkdir()
    attribute.run(work.config, out, work.machine)


def theirs(work: Work, out: Path) -> None:
    """Run Bergson's commands `build` and `score`."""
    from bergson.cli.commands import Build, Score
    from bergson.config.config import DataConfig, IndexConfig, PreprocessConfig, ScoreConfig

    def index(name: str) -> IndexConfig:
        return IndexConfig(
            run_path=str(out / name),
            model=str(work.folder / "adapter"),
            data=DataConfig(dataset=str(work.folder / name)),
            precision="bf16" if str(work.machine.torch_dtype()) == "torch.bfloat16" else "fp32",
            projection_dim=work.config.projection_dim,
            projection_seed=work.config.seed,
            token_batch_size=min(work.context, work.machine.forward_tokens),
            loss_reduction=work.config.loss_reduction,
        )

    cosines = work.config.unit_normalize
    Build(index("query"), PreprocessConfig(unit_normalize=cosines, aggregation="mean")).execute()
    Score(ScoreConfig(query_path=str(out / "query")), index("pool"), PreprocessConfig(unit_normalize=cosines)).execute()


@contextmanager
def quietly() -> Iterator[None]:
    """Throw away what is printed, which would hide the table."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def floor(work: Work, base: Any) -> Seconds:
    """Return the seconds of the least that has to be done."""
    files = model_files(work.config.model)
    weights, adapter = read_weights(files.base), read_adapter(files.adapter)
    labels = sum(int(table["num_labels"].sum()) for table in work.tables.values())
    each = row_gradients(adapter, work.config.projection_dim, whole=False) * work.tokens
    batches = max(1, work.tokens // work.machine.forward_tokens)
    read = 2 * batches * (weights.passed() + weights.head) * base.dtype.itemsize
    return least_seconds(step(weights, adapter, work.tokens, labels) + each, read, base)


def agreement(ours: Path, theirs: Path) -> tuple[float, float]:
    """Return the rank correlation of both scores and their largest difference, in standard deviations of ours."""
    from bergson.data import load_scores

    mine = read_table(ours, "scores")["score"].to_numpy(np.float64)
    other = np.asarray(load_scores(theirs / "pool")[:], np.float64)[:, 0]
    rank = pd.Series(mine).corr(pd.Series(other), method="spearman")
    return float(rank), float(np.abs(mine - other).max() / mine.std())


def main() -> None:
    """Run both in turns, and print their seconds, how they agree and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an artifact of finetune")
    parser.add_argument("--data", required=True, help="an artifact of build-data in its tokens")
    parser.add_argument("--rows", type=int, default=500, help="of the pool, the first so many")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each, after one that does not count")
    parser.add_argument("--forward-tokens", type=int, default=Machine().forward_tokens, help="tokens of a batch of ours")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, turns = Path(name), {"ours": iter(range(10**6)), "Bergson": iter(range(10**6))}
        with quietly():
            work = open_work(call, folder)
            base = load_base(work.config.model, work.machine)

        def run(who: str, train: Callable[[Work, Path], None]) -> None:
            with quietly():
                train(work, folder / f"{who}-{next(turns[who])}")

        ways = {"ours": lambda: run("ours", ours), "Bergson": lambda: run("Bergson", theirs)}
        rounds = in_turns(ways, lambda: floor(work, base), call.rounds)
        rank, apart = agreement(folder / "ours-0", folder / "Bergson-0")
    print(f"\n{len(work.tables['pool']):,} rows, {len(work.tables['query']):,} queries, {work.tokens:,} tokens", end="")
    print_table(rounds, work.tokens)
    print(f"scores: rank correlation {rank:.6f}, largest difference {apart:.1e} standard deviations")
    print(f"ratio by the processor's seconds {1 / ratio(rounds, 'Bergson', 1):.2f}")
    print(f"ratio {1 / ratio(rounds, 'Bergson'):.2f}")


if __name__ == "__main__":
    main()
