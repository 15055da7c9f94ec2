"""Running means with their variance."""

import torch


class RunningMoments:
    """Running mean of tensors of one shape and their variance (Welford's update, in place: the tensors may be large).

    Attributes: count; mean, of the tensors' shape (0.0 before the first).
    """

    def __init__(self):
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def update(self, values):
        """Add tensors, stacked in the first dimension."""
        for value in values:
            if not self.count:
                self.mean, self._squares = torch.zeros_like(value), torch.zeros_like(value)
            self.count += 1
            delta = value - self.mean
            self.mean.add_(delta, alpha=1 / self.count)
            self._squares.addcmul_(delta, delta, value=1 - 1 / self.count)

    def __add__(self, other):
        """Moments of the tensors of both (Chan's formula); at least one must have some."""
        total = RunningMoments()
        total.count = self.count + other.count
        delta = other.mean - self.mean
        total.mean = self.mean + delta * (other.count / total.count)
        total._squares = self._squares + other._squares + delta * delta * (self.count * other.count / total.count)
        return total

    @property
    def variance(self):
        """Estimated variance of one tensor; zero of a single one."""
        return self._squares / max(self.count - 1, 1)

    @property
    def variance_of_mean(self):
        """Estimated variance of `mean`; infinite of a single tensor, which does not say how far others lie from it."""
        return self.variance / self.count if self.count > 1 else torch.full_like(self.mean, torch.inf)
