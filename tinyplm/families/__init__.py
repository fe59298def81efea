"""The families, one file each, found by the model_type of config.json."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..arguments import wrong
from ..models.config import check_labels
from ..models.routed import is_routed
from ..models.seq2seq_config import SEQ2SEQ, Seq2SeqConfig
from ..models.tasks import dense

# model_type of config.json -> module of this package
FAMILIES = {
    "albert": "albert",
    "baichuan": "baichuan",
    "bart": "bart",
    "bert": "bert",
    "bloom": "bloom",
    "camembert": "camembert",
    "chatglm": "chatglm",
    "chatglm_6b": "chatglm_6b",
    "deberta": "deberta",
    "deberta-v2": "deberta_v2",
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "distilbert": "distilbert",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3_text",
    "glm": "glm",
    "glm4": "glm4",
    "glm_130b": "glm_130b",
    "glm_2021": "glm_2021",
    "gpt2": "gpt2",
    "gpt3": "gpt3",
    "gpt_oss": "gpt_oss",
    "internlm": "internlm",
    "internlm2": "internlm2",
    "llama": "llama",
    "marian": "marian",
    "mbart": "mbart",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "mt5": "mt5",
    "olmo2": "olmo2",
    "openai-gpt": "openai_gpt",
    "palm": "palm",
    "phi3": "phi3",
    "qwen": "qwen",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "roberta": "roberta",
    "t5": "t5",
    "transformer": "transformer",
    "xlm-roberta": "xlm_roberta",
    "xlnet": "xlnet",
}


def family(model_type: str) -> ModuleType:
    """The module of a family by its model_type; ValueError for an unknown one."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise wrong("model_type", f"one of {', '.join(sorted(FAMILIES))}", model_type)
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")


# {model_type of config.json: (a field, the family that has it there)} of two families that share it
SHARED = {
    "glm": ("num_layers", "glm_2021"),
    "chatglm": ("inner_hidden_size", "chatglm_6b"),
}


def family_of(settings: Mapping[str, Any]) -> ModuleType:
    """The module of a family from the contents of a config.json; ValueError for an unknown one."""
    model_type = settings["model_type"]
    field, other = SHARED.get(model_type, ("", ""))
    return family(other if field in settings else model_type)


# The other tasks of a decoder: labels, or a reward, from the last token; one number a choice.
SCORE = "sequence_classification"
CHOICE = "multiple_choice"
MULTI_TOKEN = "multi_token_lm"  # a language model with modules for later tokens
LANGUAGE_MODELS = ("causal_lm", MULTI_TOKEN, SEQ2SEQ)


def is_seq2seq(family: ModuleType) -> bool:
    """Whether it is a family of encoder-decoders."""
    return issubclass(family.Config, Seq2SeqConfig)


def model_class(family: ModuleType, task: str) -> type:
    """The class of a model: EncoderModel; CausalModel, RoutedModel for a decoder with experts,
    MultiTokenModel with modules for later tokens, or ScoreModel for one that scores; Seq2SeqModel,
    or Seq2SeqTaskModel with another head than a language model's."""
    from ..models.causal_model import CausalModel
    from ..models.encoder_model import EncoderModel
    from ..models.multi_token_model import MultiTokenModel
    from ..models.routed_model import RoutedModel
    from ..models.score_model import ScoreModel
    from ..models.seq2seq_model import Seq2SeqModel
    from ..models.seq2seq_task_model import Seq2SeqTaskModel

    if hasattr(family, "TASKS"):
        return EncoderModel
    if is_seq2seq(family):
        return Seq2SeqModel if task == SEQ2SEQ else Seq2SeqTaskModel
    if task in (SCORE, CHOICE):
        return ScoreModel
    if task == MULTI_TOKEN:
        return MultiTokenModel
    return RoutedModel if is_routed(family) else CausalModel


def architectures(family: ModuleType) -> dict[str, str]:
    """{task: the class of transformers}."""
    if hasattr(family, "TASKS"):
        return {name: task.architecture for name, task in family.TASKS.items()}
    if is_seq2seq(family):
        heads = getattr(family, "HEADS", {})
        others = {name: task.architecture for name, task in heads.items()}
        return {SEQ2SEQ: family.Config.ARCHITECTURE, **others}
    config = family.Config
    known = {"causal_lm": config.ARCHITECTURE, SCORE: config.SCORED, CHOICE: config.CHOOSING}
    if hasattr(family, "module_shapes"):
        known[MULTI_TOKEN] = config.ARCHITECTURE
    return {task: architecture for task, architecture in known.items() if architecture}


def check_task(family: ModuleType, task: str | None) -> str:
    """The task, by default the family's first; ValueError for an unknown one."""
    names = list(architectures(family))
    if task is not None and not (isinstance(task, str) and task in names):
        raise wrong("task", f"one of {', '.join(names)} for {family.Config.MODEL_TYPE}", task)
    return names[0] if task is None else task


def shapes_of(family: ModuleType, config: Any, task: str) -> dict:
    """The tree of parameter shapes of a family's model for a task."""
    if hasattr(family, "TASKS"):
        return family.shapes(config, task)
    shapes = family.shapes(config)
    if is_seq2seq(family) and task != SEQ2SEQ:
        return {"body": shapes["body"], "head": family.HEADS[task].shapes(config)}
    if task == MULTI_TOKEN:
        if not config.modules:
            expected = f"1 or more for the task {MULTI_TOKEN}"
            raise wrong("config: num_nextn_predict_layers", expected, config.modules)
        modules = [family.module_shapes(config)] * config.modules
        return {**shapes, "body": {**shapes["body"], "multi_token": modules}}
    if task not in (SCORE, CHOICE):
        return shapes
    check_labels(config)
    width = shapes["body"]["tokens"][1]
    head = {"score": (width, config.num_labels)} if task == SCORE else {"choice": dense(width, 1)}
    return {"body": shapes["body"], "head": head}


def buffer_shapes_of(family: ModuleType, config: Any, task: str) -> dict:
    """The tree of shapes of what a language model saves beside the parameters, untrained."""
    if not hasattr(family, "buffer_shapes") or (is_seq2seq(family) and task != SEQ2SEQ):
        return {}
    more = {"modules": config.modules} if task == MULTI_TOKEN else {}
    return family.buffer_shapes(config, **more)


def skipped(family: ModuleType, config: Any, task: str | None) -> tuple[str, ...]:
    """Patterns of the names of tensors that a model for this task does not read."""
    later = getattr(config, "later_layers", ()) if task != MULTI_TOKEN else ()
    return (*family.SKIPPED, *getattr(config, "skipped", ()), *later)


def architecture_of(family: ModuleType, task: str) -> str:
    """The class of transformers for a task."""
    return architectures(family)[task]
