"""Folders of the Hugging Face hub: create, load and save a model, gradients under hub names."""

from .folders import create, gradients_by_hub_name, load, save

__all__ = ["create", "gradients_by_hub_name", "load", "save"]
