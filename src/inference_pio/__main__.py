"""`python -m inference_pio`: the command line, where its script is not on the path."""

from inference_pio.cli.main import main

if __name__ == "__main__":
    main()
