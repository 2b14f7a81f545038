"""Gradient descent as the scripts that train the diffusion models use it."""

import torch

LOG_EVERY = 100


def build_optimiser(models, learning_rate, steps):
    """The optimiser and its schedule; on a CUDA device the learning rate is a tensor, read at every step of a graph."""
    parameters = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    cuda = parameters[0].is_cuda
    rate = torch.tensor(learning_rate, device=parameters[0].device) if cuda else learning_rate
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=1e-4, capturable=cuda)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.05, cycle_momentum=False
    )
    return optimiser, schedule


def descend(loss, optimiser, models) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for model in models:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def smooth(average: float, value: float, step: int) -> float:
    """Running mean over about the last 100 values."""
    weight = max(0.01, 1 / (step + 1))
    return average + weight * (value - average)
