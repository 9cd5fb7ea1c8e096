"""`hatchery`, `kubectl hatchery`, `python -m hatchery_cli`."""


def main() -> None:
    """Runs the command line and exits with its exit code."""
    from hatchery_cli.app import run

    run()


if __name__ == "__main__":
    main()
