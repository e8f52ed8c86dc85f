"""How processes become the ranks of a training: `torchrun` or SLURM starts them, and they meet."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from recsys import ranks
from recsys.errors import ConfigError


def join(devices: int, num_nodes: int = 1, device: str = "auto") -> None:
    """Become one of `devices * num_nodes` ranks, as `torchrun` or SLURM started them.

    Until the process ends: another group of the same processes would meet by what is left of the
    first one's addresses. A process that is one of them already stays so.

    Args:
        devices: ranks of each machine.
        num_nodes: machines.
        device: ranks on GPUs talk by NCCL, those on `cpu` by gloo.

    Raises:
        ConfigError: another number of processes was started, or the device is one of several.
    """
    wanted = devices * num_nodes
    if wanted > 1 and ":" in device:
        raise ConfigError(
            f"device={device} is one device for {wanted} ranks; set cuda, of which each takes its "
            "own, or cpu"
        )
    environment = _environment(wanted)
    started = 1 if environment is None else environment.world_size()
    if started != wanted:
        raise ConfigError(
            f"trainer.devices={devices} trainer.num_nodes={num_nodes} is {wanted} processes, and "
            f"{started} was started; start each machine's by torchrun --nproc-per-node={devices} "
            "-m recsys.cli.main train …, or by srun"
        )
    if environment is not None and not ranks.is_joined():
        _meet(environment, device)


def _environment(wanted: int) -> ClusterEnvironment | None:
    """What started the processes; None for a process alone, as tasks of SLURM may be, too."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment() if wanted > 1 and SLURMEnvironment.detect() else None


def _meet(environment: ClusterEnvironment, device: str) -> None:
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    on_gpus = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpus:
        torch.cuda.set_device(environment.local_rank())
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )
    atexit.register(dist.destroy_process_group)
