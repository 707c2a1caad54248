"""`python -m onnxcp`."""

from onnxcp.cli import main

if __name__ == "__main__":
    main()
