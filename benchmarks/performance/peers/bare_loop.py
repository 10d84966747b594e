"""The least that training pythae's MLP can be, in rounds: no library, no gradient looked at.

What it reaches beside pythae is what the products, the optimiser and PyTorch leave to gain for anybody.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.performance.peers import networks, rounds
from zoo.errors import UsageError
from zoo.training.precision import choose


def main() -> None:
    torch.set_flush_denormal(True)  # before anything starts threads, which take it over
    given = rounds.arguments()
    if given.network != "mlp":
        raise UsageError("the bare loop knows the MLP alone.")
    torch.manual_seed(0)
    place = choose(given.device, given.precision)
    pixels, latent = networks.SPEC.dims, networks.LATENT
    encoder = nn.Sequential(nn.Linear(pixels, 512), nn.ReLU(), nn.Linear(512, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, 512), nn.ReLU(), nn.Linear(512, pixels), nn.Sigmoid())
    both = nn.ModuleList([encoder, decoder]).to(place.device)
    optimizer = torch.optim.Adam(both.parameters(), lr=rounds.LEARNING_RATE, fused=True)
    pictures = rounds.pictures(given).flatten(1).to(place.device).float() / 255

    def loss_of(x: Tensor) -> Tensor:
        mean, log_variance = encoder(x).float().chunk(2, 1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        distortion = 0.5 * F.mse_loss(decoder(z).float(), x, reduction="none").sum(1)
        rate = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        return (distortion + rate).mean()

    step = torch.compile(loss_of) if given.compile == "yes" else loss_of

    def epoch() -> float:
        order = torch.randperm(len(pictures)).to(place.device)
        losses = []
        for low in range(0, len(pictures) - given.batch + 1, given.batch):
            with place.autocast():
                loss = step(pictures[order[low : low + given.batch]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean().item()

    rounds.serve(epoch, len(pictures), given.device)


if __name__ == "__main__":
    main()
