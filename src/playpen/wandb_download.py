"""Copy a W&B run from its server to a file, in a process of its own: `python -m playpen.wandb_download ENTITY/PROJECT/RUN FILE`.

A process of its own, because W&B's helper goes on trying to reach a dead network, and a process that started it waits for it
at its end. The file gets the records of a `.wandb` file that matter (see `wandb_runs.py`), or one record `error`.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playpen.progress import tqdm


def records(path: str) -> Iterator[dict[str, Any]]:
    """Yield the run, then every row of its history."""
    import wandb

    run = wandb.Api().run(path)
    if run.state == "running":
        raise ValueError("it is still running, so its graphs would change; wait until it ends")
    yield {"type": "run", "run": {"display_name": run.name, "run_id": run.id, "config": {"update": run.config}}}
    with tqdm(total=run.lastHistoryStep + 1, desc=path, unit="step", disable=None) as bar:
        for row in run.scan_history():
            bar.update(max(0, row.get("_step", 0) + 1 - bar.n))
            yield {"type": "history", "history": {"item": row}}


def main(path: str, file: Path) -> None:
    """Write the records, and end at once."""
    status = 0
    with file.open("w") as out:
        try:
            for record in records(path):
                out.write(json.dumps(record) + "\n")
        except Exception as error:  # whatever W&B raises is told by the process that asked
            out.write(json.dumps({"type": "error", "error": " ".join(str(error).split())}) + "\n")
            status = 1
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
