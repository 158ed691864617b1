from densevision.cli import tool

if __name__ == "__main__":
    tool("benchmark")
