"""Everything that produces weights. Nothing here imports `evaluation`, whose corruptions test the weights."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's startup messages would hide a command's output
