"""A program that colours a folder with a network without weights, slowly enough to be killed."""

import sys
import time
from pathlib import Path

from fake_network import FakeNetwork

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.folder import colorize_folder
from knowhue.inference.listing import list_folder

if __name__ == "__main__":
    slow = FakeNetwork(on_predict=lambda lightness: time.sleep(0.005))
    colorize_folder(Colorizer(slow), list_folder(Path(sys.argv[1]), Path(sys.argv[2])))
