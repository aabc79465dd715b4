"""Everything that makes weights. Nothing here imports `evaluation`, whose corruptions the weights are measured on."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on the machine would bury what a command says
