import sys

from densevision.cli import run

if __name__ == "__main__":
    sys.exit(run("profile"))
