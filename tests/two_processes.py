"""Stages run by one process and by two of a gloo group, forked from one import: `python tests/two_processes.py CALLS OUT`.

CALLS is a file of {name: {kind, config, machine, imports, sets, dies_at}}; results lie in OUT/one/NAME and OUT/two/NAME. `sets: [module, name, value]`
changes a constant for this call and those after it. With `dies_at: [module, name, n]` the n-th call of that method ends the first attempt in every
process, and a second one goes on.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

from torch import distributed

from playpen.config import make_config
from playpen.machine import Machine
from playpen.stage import load_stage, run_stage


class Stopped(BaseException):
    """Ends an attempt as a signal would, without a handler in between."""


def die_at(place, name, n):
    """Let the n-th call of a method end the attempt; return what undoes that."""
    module, _, cls = place.rpartition(".")
    owner, calls = getattr(import_module(module), cls), []
    real = getattr(owner, name)

    def dying(self, *args, **more):
        calls.append(1)
        if len(calls) == n:
            raise Stopped
        return real(self, *args, **more)

    setattr(owner, name, dying)
    return lambda: setattr(owner, name, real)


def run_all(calls, out):
    for name, call in calls.items():
        config = make_config(load_stage(call["kind"]).Config, call["config"], name)
        (out / name).mkdir(parents=True, exist_ok=True)
        if "sets" in call:
            module, constant, value = call["sets"]
            setattr(import_module(module), constant, value)
        if "dies_at" in call:
            undo = die_at(*call["dies_at"])
            try:
                run_stage(call["kind"], config, out / name, Machine(**call["machine"], checkpoint_seconds=0))
            except Stopped:
                undo()
        run_stage(call["kind"], config, out / name, Machine(**call["machine"]))


def fork(work):
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def as_one_of_two(rank, calls, out):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    distributed.init_process_group("gloo", init_method=f"file://{out.resolve()}/group", rank=rank, world_size=2)
    run_all(calls, out / "two")
    distributed.destroy_process_group()


def main(calls, out):
    found = json.loads(Path(calls).read_text())
    out = Path(out)
    for module in sorted({module for call in found.values() for module in call.get("imports", [])}):
        import_module(module)
    children = [fork(lambda: run_all(found, out / "one"))]
    children += [fork(lambda r=rank: as_one_of_two(r, found, out)) for rank in range(2)]
    ended = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
