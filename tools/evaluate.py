import sys

from densevision.cli import run

sys.exit(run("evaluate"))
