"""A machine takes what is there, and refuses what it is told to use and lacks."""

import pytest
import torch

from playpen.config import PlaypenError
from playpen.machine import Machine


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_on_a_machine_without_accelerator_is_the_cpu_in_float32(cpu_only):
    assert (Machine().torch_device().type, Machine().torch_dtype()) == ("cpu", torch.float32)


def test_auto_takes_cuda_in_bfloat16_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (Machine().torch_device().type, Machine().torch_dtype()) == ("cuda", torch.bfloat16)
    assert Machine(device="cpu").torch_dtype() == torch.float32
    assert Machine(dtype="float32").torch_dtype() == torch.float32


def test_a_named_device_that_is_missing_is_an_error(cpu_only):
    with pytest.raises(PlaypenError, match=r"machine.device is cuda, but this machine has only cpu"):
        Machine(device="cuda").torch_device()
