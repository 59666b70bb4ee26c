"""Gradient descent with differential privacy (Abadi et al., Deep Learning with Differential Privacy, CCS 2016).

Apart from defense.py, because importing torch takes longer than all the rest and `predict` has no need of it.
"""

import numpy as np
import torch
from opacus import PrivacyEngine
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 20
BATCHES = 8  # per epoch; each record is in a batch with a chance of 1/8
LEARNING_RATE = 4.0
LARGEST_GRADIENT = 0.5  # a record's gradient is cut to this length


def train(
    features: np.ndarray, targets: np.ndarray, outputs: int, epsilon: float, delta: float, seed: int
) -> np.ndarray:
    """Weights [outputs, features + 1] (the last column is the bias) of a linear model that is (epsilon, delta)-private.

    `targets` are class positions, or numbers where there is one output.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = torch.nn.Linear(features.shape[1], outputs)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    kind = torch.float32 if outputs == 1 else torch.int64
    data = TensorDataset(torch.tensor(features, dtype=torch.float32), torch.tensor(targets, dtype=kind))
    model, optimizer, batches = PrivacyEngine().make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
        data_loader=DataLoader(data, batch_size=-(-len(data) // BATCHES)),
        target_epsilon=epsilon,
        target_delta=delta,
        epochs=EPOCHS,
        max_grad_norm=LARGEST_GRADIENT,
    )
    for _ in range(EPOCHS):
        for some, wanted in batches:
            optimizer.zero_grad()
            loss(model(some), wanted).backward()
            optimizer.step()
    weight, bias = (parameter.detach().numpy() for parameter in model.parameters())
    print(f"noise multiplier {optimizer.noise_multiplier:.2f} for epsilon {epsilon}, delta {delta}")
    return np.column_stack([weight, bias])


def loss(answers: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    if answers.shape[1] == 1:
        return functional.mse_loss(answers[:, 0], wanted)
    return functional.cross_entropy(answers, wanted)
