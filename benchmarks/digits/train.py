"""Train the digit classifier behind ``fd_digits``: `python -m benchmarks.digits.train`, under two minutes on
one core.

On the official 50,000 MNIST training images; a random half of every batch is binarised the way dynamic
binarisation does it, so that the features mean something on grey and on binary digits alike. On one kind of
machine the same weights come out bit for bit. The shipped file was made by this script; another processor may
round otherwise and print another hash, so a new file does not become the metric until `model.SHA256` names
it.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator

import click
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits.model import SHA256, DigitClassifier, weights_path
from benchmarks.interrupt import stoppable
from zoo.data.mnist import load_mnist
from zoo.files import atomic_write

BATCH, EPOCHS, RATE = 250, 8, 4e-3
WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.05
SHIFT = 2  # pixels


def train(
    pixels: Tensor, labels: Tensor, seed: int = 0, epochs: int = EPOCHS, steps: int | None = None
) -> DigitClassifier:
    """Fit the classifier to uint8 images (N, 1, 28, 28) and labels (N,) with AdamW and a one-cycle rate.

    Batches of `BATCH`, or of all images where they are fewer; ``steps`` of them instead of whole ``epochs``, if given.
    """
    size = min(BATCH, len(pixels))
    torch.default_generator.manual_seed(seed)  # not that of a device as well, which nothing here draws from
    model = DigitClassifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    steps = len(pixels) // size * epochs if steps is None else steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    with tqdm(total=steps, unit="step", disable=None) as bar:
        for index in stoppable(itertools.islice(_batches(len(pixels), size), steps)):
            grey = _shift(pixels[index]).float() / 255
            binary = torch.rand(size, 1, 1, 1) < 0.5
            x = torch.where(binary, (torch.rand_like(grey) < grey).float(), grey)
            loss = F.cross_entropy(model(x), labels[index], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def accuracy(model: DigitClassifier, x: Tensor, labels: Tensor) -> float:
    """Fraction of float images (N, 1, 28, 28) in [0, 1] that are put into their class (N,)."""
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in x.split(1000)])
    return float((guesses == labels).double().mean())


def _batches(n: int, size: int) -> Iterator[Tensor]:
    """Indices of one batch after the other, epoch after epoch without end, each in an order of its own."""
    while True:
        yield from torch.randperm(n)[: n // size * size].view(-1, size)


def _shift(images: Tensor) -> Tensor:
    # One shift a batch, of at most two pixels: cheap, and enough to gain two tenths of a percent.
    down, right = (int(torch.randint(-SHIFT, SHIFT + 1, ())) for _ in range(2))
    return images.roll((down, right), (2, 3))


@click.command()
@click.option(
    "--seed", default=0, show_default=True, help="Of the initial weights and the order of the images."
)
def main(seed: int) -> None:
    """Train the digit classifier and write its weights beside the module, named by their hash."""
    torch.set_num_threads(1)  # the order of floating-point sums, and with it the hash, depends on it
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    mnist = load_mnist()
    model = train(mnist["train"].pixels, mnist["train"].labels, seed)
    content = save({name: value.contiguous() for name, value in sorted(model.state_dict().items())})
    sha256 = hashlib.sha256(content).hexdigest()
    atomic_write(weights_path(sha256), content)
    for name, images in (("test", mnist["test"]), ("test, binarised", mnist.prepare("dynamic")["test"])):
        share = accuracy(model, images.pixels.float() / 255, images.labels)
        click.echo(f"accuracy on {name}: {100 * share:.2f} %")
    click.echo(f"{weights_path(sha256).name}: {len(content):,} bytes, {time.perf_counter() - start:.0f} s")
    click.echo(f"SHA-256 {sha256}" + (" (the shipped weights)" if sha256 == SHA256 else ""))


if __name__ == "__main__":
    main()
