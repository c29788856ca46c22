"""What the work is done on, and what is said where that is not what the machine could do."""

import stat
from pathlib import Path

import pytest
import torch

from src import devices
from tests import fake_gpu


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in (devices.FORCED, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def no_gpu_of_torch(monkeypatch, cuda: str | None):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)


@pytest.mark.parametrize(
    ("capability", "trained", "embedded"),
    [
        (fake_gpu.GTX1080, torch.float32, torch.float32),
        ((7, 0), torch.float16, torch.float16),
        (fake_gpu.T4, torch.float16, torch.float16),
        (fake_gpu.A100, torch.bfloat16, torch.float16),
        ((12, 0), torch.bfloat16, torch.float16),
    ],
)
def test_precision_goes_by_what_the_hardware_has_and_not_by_emulation(
    monkeypatch, capability, trained, embedded
):
    fake_gpu.pretend(monkeypatch, capability)
    cuda = torch.device("cuda")
    assert devices.training_precision(cuda) == trained
    assert devices.embedding_precision(cuda) == embedded


def test_the_cpu_works_in_bfloat16_only_where_it_has_it(monkeypatch):
    for has, precision in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        assert devices.training_precision(torch.device("cpu")) == precision
        assert devices.embedding_precision(torch.device("cpu")) == torch.float32
    assert devices.embedding_precision(torch.device("mps")) == torch.float32
    assert devices.training_precision(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 9), ["sm_75", "sm_86"], True),  # code for 8.6 runs on 8.9
        ((8, 0), ["sm_86"], False),
        ((6, 1), ["sm_75", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),  # compiled when it is loaded
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100"], True),
    ],
)
def test_a_gpu_without_code_in_this_torch_is_one_sentence_and_the_cpu(
    monkeypatch, capability, built_for, runs
):
    fake_gpu.pretend(monkeypatch, capability, built_for)
    if runs:
        assert devices.device() == torch.device("cuda") and devices.input_side() == 112
        return
    with pytest.warns(RuntimeWarning, match=r"compute capability \d+\.\d, for which torch .* has no code"):
        assert devices.device().type == "cpu"
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: True)
    assert "has no code" in devices.idle_gpu()
    monkeypatch.setenv(devices.FORCED, "cuda")
    with pytest.raises(ValueError, match='FACE_DEVICE is "cuda", but NVIDIA Pretend has compute capability'):
        devices.device()


def test_a_device_can_be_forced_and_one_that_is_not_there_is_refused(monkeypatch):
    fake_gpu.pretend(monkeypatch)
    monkeypatch.setenv(devices.FORCED, "CPU")
    assert devices.device().type == "cpu" and devices.input_side() == 64
    assert devices.idle_gpu() == ""
    monkeypatch.setenv(devices.FORCED, "cuda:0")
    assert devices.device() == torch.device("cuda:0")
    monkeypatch.setenv(devices.FORCED, "cuda:3")
    with pytest.raises(ValueError, match="torch sees 1 such devices"):
        devices.device()
    for nonsense in ("gpu", "xpu", "the fast one"):
        monkeypatch.setenv(devices.FORCED, nonsense)
        with pytest.raises(ValueError, match='set it to "cpu", "cuda", "cuda:1" or "mps"'):
            devices.device()


def test_a_gpu_is_seen_by_its_driver_whatever_torch_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "_DRIVER", (str(tmp_path / "nvidia0"),))
    assert not devices.nvidia_gpu()
    tool = tmp_path / "nvidia-smi"
    for answer, seen in (("GPU 0: NVIDIA T4 (UUID: GPU-1)", True), ("No devices were found", False)):
        tool.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        assert devices.nvidia_gpu() == seen
    (tmp_path / "nvidia0").touch()
    assert devices.nvidia_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not devices.nvidia_gpu(), "it has been switched off on purpose"


@pytest.mark.parametrize(
    ("cuda", "reason", "remedy"),
    [(None, "built without CUDA", "pytorch.org"), ("13.0", "for CUDA 13.0 can't use it", "update it")],
)
def test_a_gpu_that_torch_does_not_use_is_in_the_banner_with_the_remedy(monkeypatch, cuda, reason, remedy):
    no_gpu_of_torch(monkeypatch, cuda)
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: False)
    assert "WARNING" not in devices.banner(("CPUExecutionProvider",))
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: True)
    said = devices.banner(("CPUExecutionProvider",))
    assert "Networks run on the CPU" in said and "64 x 64" in said
    assert "WARNING" in said and reason in said and remedy in said


def test_the_banner_names_device_precision_input_side_and_provider(monkeypatch):
    fake_gpu.pretend(monkeypatch, fake_gpu.T4)
    said = devices.banner(("CUDAExecutionProvider", "CPUExecutionProvider"))
    for part in ("NVIDIA Pretend", "7.5", "float16", "112 x 112", "CUDAExecutionProvider"):
        assert part in said
    assert "WARNING" not in said
    assert "ONNX Runtime does not use the GPU" in devices.banner(("CPUExecutionProvider",))


def test_errors_of_memory_are_told_from_others():
    assert devices.out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert devices.out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    assert devices.out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not devices.out_of_memory(RuntimeError("sizes of tensors must match"))
    assert not devices.out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(not Path("/lib64/ld-linux-x86-64.so.2").exists(), reason="glibc's allocator is meant")
def test_memory_that_is_freed_is_kept_for_a_while_and_then_given_back():
    import resource  # which Windows lacks

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.ones(2**24).add_(1)  # 64 MB, as a large layer's output
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    anew = faults()
    with devices.kept_memory():
        faults()
        assert faults() < anew / 4
    assert faults() > anew / 4


def test_a_long_stage_says_how_many_minutes_it_will_take(capsys):
    for steps, said in ((600, ["embedding: about 10 minutes"]), (60, [])):
        with devices.Bar(total=steps, desc="embedding", file=None) as bar:
            seconds = [0.0]
            bar._time, bar.start_t = lambda seconds=seconds: seconds[0], 0
            bar.last_print_t = bar.mininterval = 10.0**10  # draws nothing
            for _ in range(20):
                seconds[0] += 1
                bar.update()
        assert [line for line in capsys.readouterr().out.splitlines() if "about" in line] == said
