"""Write any number of short chats of an embedded world, as JSON Lines: a pool to rank with the models of that world.

    .venv/bin/python benchmarks/world_pool.py --world runs/demo/world --rows 1000000 --out pool.jsonl

The world's things and their names are those of the artifact; the chats are drawn anew, CHUNK of them at a time with a seed of their
own, so that memory does not grow with their number. Same arguments, same bytes. Some chats come twice: build-pool drops them.
"""

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path

from tqdm import tqdm

from playpen import artifact
from playpen.tables import unfinished
from playpen.world import World, make_chats, make_lore

CHUNK = 5000
FIRST_SEED = 1_000_000
"""Far from any seed that a preset gives a world."""


def main() -> None:
    """Write the chats; the file is there only when it is whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", required=True, help="an artifact of make-world")
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many chats")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, .jsonl")
    call = parser.parse_args()
    made = artifact.read_manifest(artifact.find_artifact(call.world))["config"]
    config = World(**{field.name: made[field.name] for field in fields(World) if field.name in made})
    lore, part = make_lore(config), unfinished(call.out)
    with part.open("w", encoding="utf-8") as file:
        for start in tqdm(range(0, call.rows, CHUNK), desc="writing", unit="chunk", mininterval=1):
            drawn = replace(config, seed=FIRST_SEED + start // CHUNK, num_chats=min(CHUNK, call.rows - start))
            for chat in make_chats(drawn, lore):
                row = {"messages": chat.messages, "source": chat.source, "quality": chat.quality_score}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(call.out)


if __name__ == "__main__":
    main()
