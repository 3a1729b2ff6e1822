"""Train a potential: python train.py [group=option] [key=value] (see configs/train.yaml)."""

import sys

from mlip.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
