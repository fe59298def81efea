"""The families, one file each, and the Model that a user holds."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

# model_type of config.json -> module of this package
FAMILIES = {"albert": "albert", "bert": "bert", "camembert": "camembert", "deberta": "deberta", "deberta-v2": "deberta_v2",
            "distilbert": "distilbert", "gpt2": "gpt2", "llama": "llama", "roberta": "roberta",
            "xlm-roberta": "xlm_roberta", "xlnet": "xlnet"}  # fmt: skip


def family(model_type: str) -> ModuleType:
    """The module of a family by its hub name; ValueError naming the families there are."""
    if model_type not in FAMILIES:
        raise ValueError(f"unknown model_type {model_type!r}; tinyplm has {', '.join(sorted(FAMILIES))}")
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")


def model_class(family: ModuleType) -> type:
    """EncoderModel for a family with TASKS, else CausalModel."""
    from .causal_model import CausalModel
    from .encoder_model import EncoderModel

    return EncoderModel if hasattr(family, "TASKS") else CausalModel


def task_names(family: ModuleType) -> list[str]:
    return list(getattr(family, "TASKS", ["causal_lm"]))


def check_task(family: ModuleType, task: str | None) -> str:
    """The task, by default the family's first; ValueError for one that the family has not."""
    if task is not None and task not in task_names(family):
        raise ValueError(f"unknown task {task!r}; {family.Config.MODEL_TYPE} has {', '.join(task_names(family))}")
    return task_names(family)[0] if task is None else task


def shapes_of(family: ModuleType, config: Any, task: str) -> dict:
    """The tree of parameter shapes of a family's model for a task."""
    return family.shapes(config, task) if hasattr(family, "TASKS") else family.shapes(config)


def architecture_of(family: ModuleType, task: str) -> str:
    """transformers' class."""
    return family.TASKS[task].architecture if hasattr(family, "TASKS") else family.Config.ARCHITECTURE
