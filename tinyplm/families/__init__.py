"""The families, one file each, and the Model that a user holds."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from ..arguments import shown
from ..models.config import check_labels

# model_type of config.json -> module of this package
FAMILIES = {
    "albert": "albert",
    "bert": "bert",
    "camembert": "camembert",
    "deberta": "deberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "roberta": "roberta",
    "xlm-roberta": "xlm_roberta",
    "xlnet": "xlnet",
}


def family(model_type: str) -> ModuleType:
    """The module of a family by its hub name; ValueError naming the families there are."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"unknown model_type {shown(model_type)}; tinyplm has {', '.join(sorted(FAMILIES))}"
        )
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")


SCORE = (
    "sequence_classification"  # a decoder's other task: labels, or a reward, from its last token
)


def model_class(family: ModuleType, task: str) -> type:
    """EncoderModel for a family with TASKS, else CausalModel, or ScoreModel for a decoder's score head."""
    from ..models.causal_model import CausalModel
    from ..models.encoder_model import EncoderModel
    from ..models.score_model import ScoreModel

    return (
        EncoderModel if hasattr(family, "TASKS") else ScoreModel if task == SCORE else CausalModel
    )


def architectures(family: ModuleType) -> dict[str, str]:
    """{task: transformers' class}."""
    if hasattr(family, "TASKS"):
        return {name: task.architecture for name, task in family.TASKS.items()}
    return {"causal_lm": family.Config.ARCHITECTURE, SCORE: family.Config.SCORED}


def check_task(family: ModuleType, task: str | None) -> str:
    """The task, by default the family's first; ValueError for one that the family has not."""
    names = list(architectures(family))
    if task is not None and not (isinstance(task, str) and task in names):
        raise ValueError(
            f"unknown task {shown(task)}; {family.Config.MODEL_TYPE} has {', '.join(names)}"
        )
    return names[0] if task is None else task


def shapes_of(family: ModuleType, config: Any, task: str) -> dict:
    """The tree of parameter shapes of a family's model for a task."""
    if hasattr(family, "TASKS"):
        return family.shapes(config, task)
    shapes = family.shapes(config)
    if task != SCORE:
        return shapes
    check_labels(config)
    width = shapes["body"]["tokens"][1]
    return {"body": shapes["body"], "head": {"score": (width, config.num_labels)}}


def architecture_of(family: ModuleType, task: str) -> str:
    """transformers' class."""
    return architectures(family)[task]
