"""What a command costs: its own processes, from its own start."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import subprocess, sys, time
from pipelines.costs import METER
METER.begin()
busy = "x = bytearray(200 << 20); import time; end = time.process_time() + 0.5\\nwhile time.process_time() < end: pass"
child = subprocess.Popen([sys.executable, "-c", busy + "\\nprint(); sys = input()"], stdin=-1, stdout=-1)
child.stdout.readline()
while_it_lives = METER.so_far()
child.communicate(b"\\n")
after_it = METER.so_far()
METER.begin()
print([while_it_lives, after_it, METER.so_far()])
"""


def test_children_count_while_they_live_and_after_and_the_next_command_begins_at_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    living, ended, again = ({key: float(value) for key, value in of.items()} for of in eval(done.stdout))
    assert living["cpu-s"] >= 0.5
    assert living["peak-mib"] > 200
    assert ended["cpu-s"] >= 0.5
    assert living["wall-s"] >= 0.5
    assert again["wall-s"] < 0.4
    assert again["cpu-s"] < 0.4
