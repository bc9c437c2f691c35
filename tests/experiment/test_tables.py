"""Tables, intervals, and the note on how figures came about."""

import csv
import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from scalefp.experiment import csv_table, hardware, made, making, markdown_table, wilson

HEAD, ROWS = ["name", "share, %"], [["a", "1"], ["b, or | c", '2 "x"']]


def test_a_markdown_table() -> None:
    assert markdown_table(HEAD, ROWS, right={1}) == (
        "| name | share, % |\n| --- | ---: |\n| a | 1 |\n" + r'| b, or \| c | 2 "x" |'
    )
    assert markdown_table(HEAD, []) == "| name | share, % |\n| --- | --- |"


def test_csv_gives_back_what_it_was_given() -> None:
    text = csv_table(HEAD, ROWS)
    assert text.startswith('name,"share, %"\na,1\n')
    assert list(csv.reader(io.StringIO(text))) == [HEAD, *ROWS]


def test_the_interval_is_wilsons() -> None:
    # Of 8 in 10: the roots of (p - 0.8)^2 = z^2 p (1 - p) / 10.
    z2 = 1.959964**2
    roots = np.sort(np.roots([1 + z2 / 10, -(1.6 + z2 / 10), 0.64]))
    assert wilson(8, 10) == pytest.approx(roots)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    low, high = wilson(5000, 10_000)
    assert high - low == pytest.approx(2 * 1.959964 * 0.5 / 100, rel=1e-3)


def test_the_note_on_a_run_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/home/me/experiments/demo/demo.py", "--out", "/secret/place/a b", "--keys", "3"]
    monkeypatch.setattr(sys, "argv", words)
    note = making(12.6)
    assert note["command"] == "python experiments/demo/demo.py --out 'a b' --keys 3"
    assert note["cpu_seconds"] == 13
    assert note["hardware"].endswith(f"cores), {torch.get_num_threads()} threads used")
    text = made(
        {"seed": 7, **note, "cpu_seconds": 1234, "date": "2026-01-02", "hardware": "abacus"}
    )
    assert text == f"seed 7; 2026-01-02; abacus; 1,234 s of processor time; `{note['command']}`."


def test_the_kit_loads_neither_torch_nor_matplotlib() -> None:
    script = (
        "import sys\n"
        "from scalefp.experiment import hardware\n"
        "print(hardware())\n"
        "assert not {'torch', 'matplotlib'} & {*sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hardware().startswith(done.stdout.strip())  # here with torch: its threads stand behind
