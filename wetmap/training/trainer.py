"""Lightning as it is used here: quiet, one device per process, and with the exits that the command line expects."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from wetmap.errors import TrainingError
from wetmap.recipe import Training
from wetmap.training.data import Batches, EpochBatches
from wetmap.training.seat import Seat, TrainingPart, ValidationPart

if TYPE_CHECKING:
    from wetmap.training.module import ModulePlan

#: What Lightning itself causes to be warned of in a correct run, by exact message: nothing a user could act on.
LIGHTNING_WARNINGS = (
    # Lightning 2.6 still makes a LeafSpec of a PyTorch that replaces it by TreeSpec.
    "`isinstance(treespec, LeafSpec)` is deprecated, "
    "use `isinstance(treespec, TreeSpec) and treespec.is_leaf()` instead.",
)
#: Loggers on which Lightning announces devices and tips.
LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


def run_lightning(model: nn.Module, batches: EpochBatches, validation: Batches, plan: ModulePlan, folder: Path) -> None:
    """Train ``model`` in place; ``plan.on_epoch`` gets the state after every epoch.

    Args:
        model: The network.
        batches: Training batches of all processes; each takes its part.
        validation: Validation batches of all processes, likewise.
        plan: What to do, and the seat of this process.
        folder: Lightning's root, in which it writes nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SystemExit: SIGTERM, with status 143.
    """
    import lightning
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from wetmap.training.module import FitModule

    trainer = lightning.Trainer(
        **_devices(model, plan.seat),
        max_epochs=plan.settings.epochs - (0 if plan.start is None else plan.start.epochs_done),
        precision=lightning_precision(plan.settings.precision, model),
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    if plan.seat.ranks > 1:
        batches, validation = TrainingPart(batches, plan.seat), ValidationPart(validation, plan.seat)
    try:
        trainer.fit(FitModule(model, batches, plan), train_dataloaders=batches, val_dataloaders=validation)
    except SIGTERMException as stop:
        # Lightning's exception would end the process with status 0.
        raise SystemExit(128 + signal.SIGTERM) from stop
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            # Lightning turns Ctrl-C into exit status 1; the command line decides what it means.
            raise KeyboardInterrupt from stop
        raise


def _devices(model: nn.Module, seat: Seat) -> dict[str, Any]:
    """The trainer's arguments about devices and processes."""
    if seat.ranks == 1:
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment

        # One process on one device: a Slurm job's variables are not for this trainer.
        return {"accelerator": "auto", "devices": 1, "plugins": [LightningEnvironment()]}
    from wetmap.models.supervit import SuperVit, SuperVitDense
    from wetmap.training.strategy import SeatEnvironment, make_strategy

    on_gpu = torch.cuda.is_available()
    return {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": seat.local_ranks,
        "num_nodes": seat.nodes,
        "plugins": [SeatEnvironment(seat)],
        # of a SuperViT's position tables, a step uses those of two sizes
        "strategy": make_strategy(unused_parameters=isinstance(model, SuperVit | SuperVitDense)),
        # PyTorch has it for GPUs only
        "sync_batchnorm": on_gpu,
    }


def end_at_once(_signal: int, _frame: FrameType | None) -> None:
    """What SIGTERM does where several processes train: Lightning's own way can leave them waiting for each other."""
    raise SystemExit(128 + signal.SIGTERM)


def slow_batch_words(settings: Training, seconds: float) -> str:
    """What is said where one batch takes longer than all the training time, seconds: the minutes cannot bound that."""
    return (
        f"One batch of {settings.batch_size} samples took {seconds:.3g} s, and all training was to take "
        f"{(settings.minutes or 0) * 60:.3g} s: the model learnt from that one batch. Give more minutes, a smaller "
        "training.batch_size, or a smaller model."
    )


def lightning_precision(precision: str, model: nn.Module) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name for a recipe's precision; ``auto`` is bfloat16 autocast where CUDA computes with it itself.

    Raises:
        TrainingError: bfloat16 is asked of a CPU that would compute wrong gradients.
    """
    on_gpu = torch.cuda.is_available()
    if precision == "auto":
        precision = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(False) else "float32"
    # seen with PyTorch 2.13 on x86: gradients of some kernels are not numbers, and differ from call to call
    if precision == "bfloat16" and not on_gpu and any(isinstance(part, nn.Conv3d) for part in model.modules()):
        raise TrainingError(
            "training.precision is bfloat16, in which a CPU computes the gradients of 3-D convolutions wrong, and this "
            "model has some.",
            do="Use auto or float32, or a machine with a CUDA device.",
        )
    return "bf16-mixed" if precision == "bfloat16" else "32-true"


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Import and run Lightning without its announcements, and without what its import does to the process."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    formatter = warnings.formatwarning
    with warnings.catch_warnings():
        import lightning.fabric  # sets levels, warning filters and the format of warnings
        import lightning.pytorch  # noqa: F401

        for message in LIGHTNING_WARNINGS:
            warnings.filterwarnings("ignore", message=f"^{re.escape(message)}$", category=FutureWarning)
        # wherever Slurm is installed; its advice is to start this very command by srun, which wetmap has no need of
        warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            warnings.formatwarning = formatter
