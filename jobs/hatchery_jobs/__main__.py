"""`python -m hatchery_jobs`: the entry point of every pod."""

import argparse
import sys
from pathlib import Path

from hatchery_api.contract import INPUT_PATH
from hatchery_jobs.hub import push_folder
from hatchery_jobs.runtime import guard_streams, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="hatchery_jobs", description="Runs one stage of a Hatchery resource.")
    parser.add_argument("--input", type=Path, default=Path(INPUT_PATH), help="path of the JobInput, as JSON")
    guard_streams()
    sys.exit(main(parser.parse_args().input, push_folder))
