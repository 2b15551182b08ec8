"""``python -m millie``: the command line, for launchers such as torchrun that want a module."""

from millie.cli.commands import main

if __name__ == "__main__":  # worker processes import this module too
    main()
