"""Peak memory: a stage's own peak is seen, and an earlier one is not counted again."""

import pytest

from playpen import resident_memory

MB = 1 << 20


def test_the_peak_is_that_since_counting_began() -> None:
    if not resident_memory.start_peak():
        pytest.skip("this system does not count peaks anew")
    held = bytearray(300 * MB)
    assert len(held) == 300 * MB
    before = resident_memory.peak()
    del held
    assert resident_memory.start_peak()
    after = resident_memory.peak()
    assert before is not None
    assert after is not None
    assert before - after > 250 * MB


def test_a_manifest_tells_the_peak_of_its_stage(tmp_path) -> None:
    from playpen.artifact import read_manifest
    from playpen.machine import Machine
    from playpen.stage import make_plan, run_plan

    plan = make_plan({"world": {"kind": "make-world", "num_documents": 50, "num_chats": 60}})
    made = run_plan(plan, tmp_path, Machine(device="cpu"), say=lambda line: None)["world"]
    assert read_manifest(made)["provenance"]["peak_memory"] > 10 * MB
