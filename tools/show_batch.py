import sys

from densevision.cli import run

sys.exit(run("show_batch"))
