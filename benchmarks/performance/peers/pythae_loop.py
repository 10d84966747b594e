"""pythae's own trainer on its own networks, in rounds. Run by the Python of pythae's environment."""

from __future__ import annotations

import logging
import tempfile

import torch

from benchmarks.performance.peers import rounds


def main() -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    given = rounds.arguments()
    logging.disable(logging.INFO)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="mse")
    nets = {}
    torch.manual_seed(0)
    if given.network == "conv":
        nets = {"encoder": Encoder_Conv_VAE_MNIST(config), "decoder": Decoder_Conv_AE_MNIST(config)}
    # As its TrainingPipeline does: the whole set as float32 in [0, 1].
    pictures = rounds.pictures(given).float() / 255
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            model=VAE(config, **nets),
            train_dataset=BaseDataset(pictures, torch.ones(len(pictures))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=given.batch,
                learning_rate=rounds.LEARNING_RATE,
                no_cuda=given.device == "cpu",
                amp=given.precision != "float32",
            ),
        )
        trainer.prepare_training()
        epochs = iter(range(1, 1 << 30))
        rounds.serve(lambda: float(trainer.train_step(next(epochs))), len(pictures), given.device)


if __name__ == "__main__":
    main()
