"""Variational models as one would write them by hand in torch: what a step of tfzoo's is measured against."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


class Vae(nn.Module):
    """The convolutional autoencoder of TensorFlow's tutorial."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 4)
        )
        self.decoder = nn.Sequential(
            nn.Linear(2, 1568),
            nn.ReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 64, 3, 2, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, 1, 1),
        )

    def forward(self, x, noise=None):
        """Give the loss and what a log has besides, of pictures (B, 1, H, W); the noise of the latents is drawn."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.exp(log_variance / 2) * (torch.randn_like(mean) if noise is None else noise)
        entropy = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum((1, 2, 3))
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2
        bound = (entropy + divergence).mean()
        return bound, {"elbo": -bound, "divergence": divergence.mean()}


class Residual(nn.Module):
    """x + 1x1(relu(3x3(relu(x))))."""

    def __init__(self, hidden: int, units: int):
        super().__init__()
        self.conv0 = nn.Conv2d(hidden, units, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(units, hidden, 1, bias=False)

    def forward(self, x):
        return x + self.conv1(F.relu(self.conv0(F.relu(x))))


class Quantiser(nn.Module):
    """A codebook that follows by debiased moving averages, and whose dead codes begin again."""

    def __init__(self, codes: int, dimensions: int, decay: float = 0.99, dead: float = 0.03):
        super().__init__()
        self.decay, self.dead = decay, dead
        self.register_buffer("book", torch.empty(codes, dimensions).uniform_(-1 / codes, 1 / codes))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dimensions))

    def forward(self, z):  # (B, D, h, w)
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        codes = (self.book.square().sum(1) - 2 * rows @ self.book.T).argmin(1)
        quantised = F.embedding(codes, self.book).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)
        counts = torch.bincount(codes, minlength=len(self.book)).float()
        if self.training:
            self.follow(rows.detach(), codes, counts)
        return codes.view(len(z), *z.shape[2:]), quantised, counts

    @torch.no_grad()
    def follow(self, rows, codes, counts):
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, rows), 1 - self.decay)
        mean = self.counts.mean()
        dead = self.counts < self.dead * mean
        if dead.any():
            again = rows[torch.randint(len(rows), (int(dead.sum()),))]
            again = again + 0.01 * again.square().mean().sqrt() * torch.randn_like(again)
            self.counts[dead], self.sums[dead] = mean, again * mean
        self.book = self.sums / self.counts[:, None]


class PixelCnn(nn.Module):
    """A gated PixelCNN whose inputs are shifted, so that nothing is masked."""

    def __init__(self, codes: int, units: int, depth: int, dropout: float):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(codes, units), nn.Dropout(dropout)
        for name, shape in {"v": (units, 2 * units, (2, 3)), "h": (units, 2 * units, (1, 2))}.items():
            self.add_module(name, nn.ModuleList(nn.Conv2d(*shape) for _ in range(depth)))
        self.v_to_h = nn.ModuleList(nn.Conv2d(2 * units, 2 * units, 1) for _ in range(depth))
        self.out = nn.ModuleList(nn.Conv2d(units, units, 1) for _ in range(depth))
        self.mixed, self.logits = nn.Conv2d(units, units, 1), nn.Conv2d(units, codes, 1)

    def forward(self, codes):  # (B, h, w)
        x = self.dropout(self.embedding(codes).permute(0, 3, 1, 2))
        v, h = F.pad(x, (0, 0, 1, -1)), F.pad(x, (1, -1))
        for of_v, of_h, v_to_h, out in zip(self.v, self.h, self.v_to_h, self.out, strict=True):
            above = of_v(F.pad(v, (1, 1, 1, 0)))
            left = of_h(F.pad(h, (1, 0))) + v_to_h(above)
            v, h = gate(above), h + out(gate(left))
        return self.logits(self.dropout(F.relu(self.mixed(F.relu(h)))))


def gate(x):
    """Let the second half of the channels weigh the first."""
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class VqVae(nn.Module):
    """A vector-quantised autoencoder and its prior, as `tfzoo.vq_vae` with `codebook="ema"`."""

    def __init__(
        self,
        image_shape=(32, 32, 3),
        hidden=128,
        residual_layers=2,
        residual_units=32,
        codes=512,
        dimensions=64,
        downsample=2,
        commitment=0.25,
        variance=1.0,
        prior_units=64,
        prior_depth=6,
        prior_dropout=0.0,
    ):
        super().__init__()
        self.commitment, self.variance = commitment, variance
        stack = [Residual(hidden, residual_units) for _ in range(2 * residual_layers)]
        widths = [image_shape[2], *[hidden // 2] * (downsample - 1), hidden]
        down = [x for a, b in itertools.pairwise(widths) for x in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        self.encoder = nn.Sequential(
            *down,
            nn.Conv2d(hidden, hidden, 3, padding=1),
            *stack[:residual_layers],
            nn.ReLU(),
            nn.Conv2d(hidden, dimensions, 1),
        )
        self.quantiser = Quantiser(codes, dimensions)
        up = [nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in itertools.pairwise(widths)][::-1]
        self.decoder = nn.Sequential(
            nn.Conv2d(dimensions, hidden, 3, padding=1),
            *stack[residual_layers:],
            nn.ReLU(),
            *[x for conv in up for x in (conv, nn.ReLU())][:-1],
        )
        self.prior = PixelCnn(codes, prior_units, prior_depth, prior_dropout)

    def forward(self, x):
        """Give the loss and what a log has besides, of pictures (B, C, H, W)."""
        z = self.encoder(x)
        codes, quantised, counts = self.quantiser(z)
        back = self.decoder(z + (quantised - z).detach())
        squared_error, commitment = F.mse_loss(back, x), F.mse_loss(z, quantised)
        nats = F.cross_entropy(self.prior(codes), codes)
        share = counts / counts.sum()
        besides = {
            "squared_error": squared_error,
            "commitment": commitment,
            "prior_nats": nats * codes[0].numel(),
            "perplexity": torch.exp(-(share * share.clamp_min(1e-10).log()).sum()),
        }
        return squared_error / self.variance + self.commitment * commitment + nats, besides
