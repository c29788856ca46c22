"""A GPU that is not there: torch says that it has one, and what is moved to it stays in memory, noted."""

import torch
from torch import nn

T4, A100, GTX1080 = (7, 5), (8, 0), (6, 1)
BUILT_FOR = ["sm_61", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


def pretend(monkeypatch, capability: tuple[int, int] = A100, built_for: list[str] = BUILT_FOR) -> list[str]:
    """Makes torch see a GPU of this compute capability; returns the list of devices networks are moved to."""
    moves: list[str] = []
    cuda = torch.cuda
    answers = {
        "is_available": True,
        "device_count": 1,
        "get_device_capability": capability,
        "get_device_name": "NVIDIA Pretend",
        "get_arch_list": built_for,
        "mem_get_info": (2**30, 24 * 2**30),
        "empty_cache": None,
        "is_bf16_supported": True,  # torch counts emulation
    }
    for name, answer in answers.items():
        monkeypatch.setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        monkeypatch.setattr(torch.optim.Optimizer, check, lambda self: None, raising=False)
    of_module, of_tensor = nn.Module.to, torch.Tensor.to

    def here(arguments):
        return [a for a in arguments if not (isinstance(a, torch.device) and a.type == "cuda")]

    def move_module(self, *args, **options):
        moves.extend(str(a) for a in args if isinstance(a, torch.device))
        rest = here(args)
        return of_module(self, *rest, **options) if rest or options else self

    def move_tensor(self, *args, **options):
        rest = here(args)
        return of_tensor(self, *rest, **options) if rest or options else self

    monkeypatch.setattr(nn.Module, "to", move_module)
    monkeypatch.setattr(torch.Tensor, "to", move_tensor)
    return moves
