"""The commands and the Python code in README and docs do what the pages say.

Each page is followed from top to bottom in a folder of its own; a block of text behind a block of
Python is what that prints. What a test cannot run is named in
``NOT_RUN`` with the reason, and must at least be a command that exists, with options that exist.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from scalefp.cli import main
from scalefp.cli.door import parse
from tests.conftest import write_image
from tests.docs.pages import FENCE, PAGES, ROOT, blocks, name_of

# Commands that no test runs -> why. An entry stands for every command that begins with it.
NOT_RUN = {
    "make ": "installs packages, or takes minutes",
    "pip install": "installs packages",
    "OMP_NUM_THREADS=1 .venv/bin/python -m pytest": "is this very run",
    "torchrun": "trains for hours",
    "curl": "needs a running service",
    "for f in crawl/*; do curl": "needs a running service",
    "scalefp serve": "runs until it is stopped",
    "scalefp train": "takes minutes",
    "timeout -s TERM 540 scalefp train": "takes minutes",
    "scalefp report": "needs a sweep, which takes minutes; tests/studies runs it",
    "scalefp release": "needs a training of minutes; tests/release runs it",
    "scalefp scan": "needs the extra scan and starts processes; tests/scan runs it",
    "scalefp artificial train": "takes an hour",
    "scalefp registry issue recipient-a --registry keys.db --model runs/faces": "needs a training",
    "scalefp instantiate --model runs/faces": "needs a training",
    "scalefp instantiate --model runs/vae": "needs a training",
    "scalefp sample --instance a.safetensors --out images --num 16": "needs a training",
    "scalefp sample --instance a.safetensors --images": "needs a training",
    "mkdir recipient-a && cp original": "needs a network of others",
    "scalefp attribute --model runs/faces": "needs a training",
    "scalefp evaluate": "takes minutes",
    "scalefp bench": "takes minutes",
    "scalefp attribute --model emoji --registry keys.db images --workers": "starts two processes",
    "find images": "starts a process of its own",
    "scalefp registry list --registry postgresql": "needs a PostgreSQL server",
    "scalefp artificial embed --data emoji64": "takes half a minute",
    "scalefp instantiate --model emoji --registry keys.db --holder recipient-a "
    "--out recipient-a.onnx": "needs the extra onnx, which is slow to import",
    "scalefp registry issue recipient-a --registry bound.db": "needs `release bind`",
    "scalefp instantiate --model bound.safetensors": "needs `release bind`",
    "scalefp sample --instance bound-a.safetensors": "needs `release bind`",
    "scalefp attribute --model bound.safetensors": "takes a minute; tests/pretrained runs it",
    "scalefp attribute --model taef2": "the photographs here are so small that chance decides; "
    "tests/pretrained runs it",
    "scalefp data prepare img_align_celeba": "needs a public data set",
    "scalefp data prepare lsun": "needs a public data set",
    "scalefp data prepare ffhq": "needs a public data set",
    "scalefp data prepare afhq": "needs a public data set",
}
# Commands whose exit code is not 0 -> their code. The suspect's picture was marked by nobody.
ENDS_WITH = {"scalefp attribute --model artificial-emoji --registry marks.db outputs": 1}
HYDRA = ("scalefp train", "scalefp evaluate", "scalefp artificial train")
LANGUAGES = {"sh", "python", "text", "json", "yaml"}


def commands(text: str) -> list[str]:
    """The commands of a block: continued lines in one, without comments."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    found = (re.sub(r"\s+#( .*)?$", "", line) for line in lines if not line.startswith("#"))
    return [" ".join(command.split()) for command in found if command]


def code_of(command: str) -> int:
    """Run a command as a shell would, a ``scalefp`` command in this process; its exit code."""
    if not command.startswith("scalefp "):
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        return subprocess.run(["bash", "-c", command], env={**os.environ, "PATH": path}).returncode
    command, _, file = command.partition(" > ")
    with contextlib.ExitStack() as stack:
        if file:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(file, "w"))))
        return main(shlex.split(command)[1:])


def check_form(command: str) -> None:
    """A command that is not run has a name and options that the program takes."""
    words = shlex.split(command)
    if words[0] == "torchrun":
        words = ["scalefp", "train", *words[words.index("scalefp.train") + 1 :]]
    if words[0] != "scalefp":
        return
    args = parse(words[1:])
    if args.prog in HYDRA:  # which composes the options, and prints them instead
        looks = [] if "--cfg" in words or "--info" in words else ["--cfg", "job"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*words[1:], *looks]) == 0, command


def write_photo(path: Path, seed: int) -> None:
    """A picture of soft colours, 80x64, in which a mark is read whatever its key: in noise it is
    read or not by chance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(64, 192, (2, 2, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((80, 64), Image.Resampling.BICUBIC).save(path)


def prepare(folder: Path) -> None:
    """What the pages take for granted: a checkout, pictures of one's own, and of a suspect's."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    for number in range(2):
        write_photo(folder / "photos" / f"{number}.png", number)
    write_image(folder / "outputs" / "0000.png", size=(64, 64))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    files = re.findall(r"`(mine/[\w/]+\.yaml)`", page.read_text())
    for block in blocks(page, "python", "sh", "yaml"):
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.text, name_of(page), "exec"), names)
            assert block.output in (None, printed.getvalue())
            continue
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)
            if files:  # that the page names, in its order
                path = Path(files.pop(0))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            continue
        for command in commands(block.text):
            if command.startswith(tuple(NOT_RUN)):
                check_form(command)
                continue
            expected = [code for start, code in ENDS_WITH.items() if command.startswith(start)]
            assert code_of(command) == (expected or [0])[0], command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language(page: Path) -> None:
    found = {match[2].strip() for match in FENCE.finditer(page.read_text())}
    assert {name for name in found if not name.startswith("{")} <= LANGUAGES


def test_every_reason_is_needed() -> None:
    """An entry that no command needs any more would hide the next one."""
    every = [one for page in PAGES for b in blocks(page, "sh") for one in commands(b.text)]
    unused = [s for s in [*NOT_RUN, *ENDS_WITH] if not any(one.startswith(s) for one in every)]
    assert not unused
