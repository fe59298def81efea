"""Model folders in the format of the Hugging Face hub.

folders.py   create, load and save a model; gradients under hub names
tensors.py   safetensors files and shards, read and written block by block
quantized.py tensors that are dequantised as they are read: of 4-bit numbers (gpt-oss) in mxfp4.py,
             of 8-bit ones (DeepSeek-V3) in fp8.py
names.py     the tensors of a folder as a parameter tree
generation_config.py  its settings, read and checked
heads.py     the task a checkpoint was saved for, and its head reused for another
prefix_encoder.py  the prefix in folders of ChatGLM's P-tuning
runs.py      the model that the folder of a training run stands for
text_part.py the text model of a folder whose model also sees images
"""

from .folders import create, gradients_by_hub_name, load, save

__all__ = ["create", "gradients_by_hub_name", "load", "save"]
