"""Answers to the exercises of chapter 13."""

import numpy as np
import torch

# ---- 13.1


def windows(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def flops(out=windows, times=lambda first: 2 if first else 3, each=None, numbers=None):
    """An answer with one of its parts replaced."""

    def answer(batch, channels, out_channels, size, kernel, stride, padding, first):
        side = out(size, kernel, stride, padding)
        made = numbers(batch, out_channels, side) if numbers else batch * out_channels * side**2
        return times(first) * made * (each(channels, kernel) if each else 2 * channels * kernel**2)

    return answer


def flops_by_loops(batch, channels, out_channels, size, kernel, stride, padding, first):
    places = 0
    for _row in range(-padding, size + padding - kernel + 1, stride):
        for _column in range(-padding, size + padding - kernel + 1, stride):
            places += 1
    forward = sum(2 for _ in range(channels * kernel * kernel)) * places * batch * out_channels
    return forward + forward + (0 if first else forward)


def flops_by_tensors(batch, channels, out_channels, size, kernel, stride, padding, first):
    side = torch.zeros(size + 2 * padding).unfold(0, kernel, stride).shape[0]
    return torch.tensor([2, batch, out_channels, side, side, channels, kernel, kernel, 3 - first]).prod()


def flops_by_numpy(batch, channels, out_channels, size, kernel, stride, padding, first):
    side = np.floor((size + 2 * padding - kernel) / stride) + 1
    return np.float64((2 + (not first)) * 2.0 * batch * out_channels * side * side * channels * kernel * kernel)


# ---- 13.2


def in_pieces(cost, weight, rows, counts, size):
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        yield torch.autograd.grad((cost(weight, rows[piece]) * counts[piece]).sum(), weight)[0], counts[piece]


def pieces(combine):
    """An answer that combines the (slope of the sum, counts) of the pieces in its own way."""
    return lambda cost, weight, rows, counts, size: combine(list(in_pieces(cost, weight, rows, counts, size)), counts)


def whole_batch(cost, weight, rows, counts, size):
    total = (cost(weight, rows) * counts).sum() / counts.sum().clamp(min=1)
    return torch.autograd.grad(total, weight)[0]


def without_mask(cost, weight, rows, counts, size):
    return pieces(lambda parts, c: sum(g for g, _ in parts) / len(c))(cost, weight, rows, counts | True, size)


def last_is_lost(cost, weight, rows, counts, size):
    total = torch.zeros_like(weight)
    for i in range(len(rows) // size):
        piece = slice(i * size, (i + 1) * size)
        total = total + torch.autograd.grad((cost(weight, rows[piece]) * counts[piece]).sum(), weight)[0]
    return total / counts.sum().clamp(min=1)


def mean_of_none(cost, weight, rows, counts, size):
    total = 0
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        mean = (cost(weight, rows[piece]) * counts[piece]).sum() / counts[piece].sum()
        total = total + torch.autograd.grad(mean, weight)[0] * counts[piece].sum()
    return total / counts.sum()


def by_backward(cost, weight, rows, counts, size):
    n = max(1, int(counts.sum()))
    for start in range(0, len(rows), size):
        ((cost(weight, rows[start : start + size]) * counts[start : start + size]).sum() / n).backward()
    return weight.grad


def filtered_first(cost, weight, rows, counts, size):
    chosen = rows[counts]
    if len(chosen) == 0:
        return torch.zeros_like(weight)
    slopes = [torch.autograd.grad(cost(weight, part).sum(), weight)[0] for part in chosen.split(size)]
    return torch.stack(slopes).sum(0) / len(chosen)


def by_weighted_means(cost, weight, rows, counts, size):
    total, seen = torch.zeros(weight.shape, dtype=torch.float64), 0
    for part, mask in zip(rows.split(size), counts.split(size), strict=True):
        if (n := int(mask.sum())) == 0:
            continue
        (mean,) = torch.autograd.grad(cost(weight, part)[mask].mean(), weight)
        seen += n
        total += (mean - total) * n / seen
    return total


# ---- 13.3


def parts_of(counts, means):
    share = (counts / counts.sum())[:, None]
    return share, (share * means).sum(0)


def statistics(variance, mean=None):
    """An answer whose variance, or mean, is computed in another way."""

    def answer(counts, means, variances):
        share, right = parts_of(counts, means)
        middle = mean(counts, means) if mean else right
        return middle, variance(share, middle, means, variances, counts)

    return answer


def right_variance(share, mean, means, variances, counts):
    return (share * (variances + (means - mean) ** 2)).sum(0)


def one_after_the_other(counts, means, variances):
    """Chan's formula for two, again and again."""
    n, mean, squares = 0, torch.zeros_like(means[0]), torch.zeros_like(means[0])
    for count, m, v in zip(counts.tolist(), means, variances, strict=True):
        if count == 0:
            continue
        gap = m - mean
        squares = squares + v * count + gap**2 * n * count / (n + count)
        mean, n = mean + gap * count / (n + count), n + count
    return mean, squares / n


def by_squares_in_64_bits(counts, means, variances):
    n, m, v = counts.double()[:, None], means.double(), variances.double()
    mean = (n * m).sum(0) / n.sum()
    return mean, (n * (v + m**2)).sum(0) / n.sum() - mean**2


def with_numpy(counts, means, variances):
    mean = np.average(means.numpy(), axis=0, weights=counts.numpy())
    return mean, np.average(variances.numpy() + (means.numpy() - mean) ** 2, axis=0, weights=counts.numpy())


# ---- 13.4


def sharing(cut=lambda x, n: x.chunk(n), combine=sum, seen=lambda own, output: output if own else output.detach()):
    """An answer with one of its parts replaced."""

    def answer(network, weight, rows, loss_of, processes):
        slopes = []
        for rank in range(processes):
            outputs = [network(weight, part) for part in cut(rows, processes)]
            outputs = [seen(other == rank, output) for other, output in enumerate(outputs)]
            slopes.append(torch.autograd.grad(loss_of(torch.cat(outputs)), weight)[0])
        return combine(slopes)

    return answer


def every_other(x, n):
    return [x[rank::n] for rank in range(n)]


def average(slopes):
    return sum(slopes) / len(slopes)


def own_loss(network, weight, rows, loss_of, processes):
    parts = rows.chunk(processes)
    return sum(torch.autograd.grad(loss_of(network(weight, part)), weight)[0] for part in parts)


def one_process(network, weight, rows, loss_of, processes):
    return torch.autograd.grad(loss_of(network(weight, rows)), weight)[0]


def put_back_in_order(network, weight, rows, loss_of, processes):
    order = torch.cat([torch.arange(rank, len(rows), processes) for rank in range(processes)]).argsort()

    def loss(outputs):
        return loss_of(outputs[order])

    return sharing(every_other)(network, weight, rows, loss, processes)


def through_the_outputs(network, weight, rows, loss_of, processes):
    outputs = [network(weight, part) for part in rows.tensor_split(processes)]
    whole = torch.cat([output.detach() for output in outputs]).requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(whole), whole)
    slopes = slope.tensor_split(processes)
    return sum(torch.autograd.grad(o, weight, s)[0] for o, s in zip(outputs, slopes, strict=True))


WRONG = {
    "check_convolution_flops": {
        "one for both": (flops(each=lambda c, k: c * k * k), "are two operations"),
        "pass alone": (flops(times=lambda first: 1), "the slopes are missing"),
        "no slope of the input": (flops(times=lambda first: 2), "slopes of the input are needed"),
        "first like others": (flops(times=lambda first: 3), "nobody needs"),
        "kernel once": (flops(each=lambda c, k: 2 * c * k), "kernel x kernel"),
        "no channels": (flops(each=lambda c, k: 2 * k * k), "all input channels"),
        "padding once": (flops(lambda s, k, t, p: (s + p - k) // t + 1), "both sides"),
        "no padding": (flops(lambda s, k, t, p: (s - k) // t + 1), "padding is left out"),
        "one window less": (flops(lambda s, k, t, p: (s + 2 * p - k) // t), "one window more"),
        "not rounded": (flops(lambda s, k, t, p: (s + 2 * p - k) / t + 1), "round down"),
        "no stride": (flops(lambda s, k, t, p: s + 2 * p - k + 1), "`stride` apart"),
        "size of the input": (flops(lambda s, k, t, p: s), "that goes in"),
        "no batch": (flops(numbers=lambda b, c, s: c * s * s), "batch is left out"),
        "no output channels": (flops(numbers=lambda b, c, s: b * s * s), "output channels are left out"),
        "one row": (flops(numbers=lambda b, c, s: b * c * s), "squared"),
        "returns nothing": (lambda *_: None, "is None"),
    },
    "check_gradient_in_pieces": {
        "mean of means": (
            pieces(lambda parts, c: sum(g / m.sum().clamp(min=1) for g, m in parts) / len(parts)),
            "averaged the pieces' means",
        ),
        "sum of means": (
            pieces(lambda parts, c: sum(g / m.sum().clamp(min=1) for g, m in parts)),
            "added up the pieces'",
        ),
        "sum": (pieces(lambda parts, c: sum(g for g, _ in parts)), "that is the sum"),
        "all rows": (pieces(lambda parts, c: sum(g for g, _ in parts) / len(c)), "those that count"),
        "number of pieces": (pieces(lambda parts, c: sum(g for g, _ in parts) / len(parts)), "number of pieces"),
        "divided twice": (
            pieces(lambda parts, c: sum(g for g, _ in parts) / c.sum().clamp(min=1) / len(parts)),
            "number of pieces too",
        ),
        "only the last": (pieces(lambda parts, c: parts[-1][0] / c.sum().clamp(min=1)), "only the last piece"),
        "no mask": (without_mask, "use the mask"),
        "last is lost": (last_is_lost, "last, smaller piece is lost"),
        "at once": (whole_batch, "11 rows at once"),
        "0 / 0": (mean_of_none, "0 / 0"),
        "none counts": (pieces(lambda parts, c: sum(g for g, _ in parts) / c.sum()), "divide by at least 1"),
        "one number": (pieces(lambda parts, c: sum(g for g, _ in parts).sum()), "shape of the weight"),
    },
    "check_combined_statistics": {
        "plain mean": (statistics(right_variance, lambda counts, means: means.mean(0)), "averaged the means"),
        "sum of means": (statistics(right_variance, lambda counts, means: means.sum(0)), "added up the means"),
        "not divided": (statistics(right_variance, lambda n, means: (n[:, None] * means).sum(0)), "that is the sum"),
        "plain variances": (statistics(lambda s, mean, m, v, n: v.mean(0)), "averaged the variances"),
        "weighted variances": (statistics(lambda s, mean, m, v, n: (s * v).sum(0)), "is missing"),
        "only between": (statistics(lambda s, mean, m, v, n: (s * (m - mean) ** 2).sum(0)), "own variance"),
        "not squared": (statistics(lambda s, mean, m, v, n: (s * (v + (m - mean).abs())).sum(0)), "not squared"),
        "unweighted": (statistics(lambda s, mean, m, v, n: (v + (m - mean) ** 2).mean(0)), "more rows weighs more"),
        "one less": (
            statistics(lambda s, mean, m, v, n: right_variance(s, mean, m, v, n) * n.sum() / (n.sum() - 1)),
            "one less",
        ),
        "root": (statistics(lambda s, mean, m, v, n: right_variance(s, mean, m, v, n).sqrt()), "standard deviation"),
        "squares": (
            statistics(lambda s, mean, m, v, n: (s * (v + m**2)).sum(0) - mean**2),
            "rounded away",
        ),
        "swapped": (lambda *given: statistics(right_variance)(*given)[::-1], "the mean comes first"),
        "mean alone": (lambda *given: statistics(right_variance)(*given)[0], "return 2 values"),
    },
    "check_shared_gradient": {
        "both still there": (sharing(every_other, average), "both mistakes are still there"),
        "still averaged": (sharing(combine=average), "you averaged"),
        "still in another order": (sharing(every_other), "block of neighbours"),
        "blocks reversed": (sharing(lambda x, n: x.chunk(n)[::-1]), "put together in another order"),
        "slopes through all": (sharing(seen=lambda own, output: output), "each row counts once for each"),
        "first part only": (sharing(combine=lambda slopes: slopes[0]), "only the first process"),
        "last part only": (sharing(combine=lambda slopes: slopes[-1]), "only the last process"),
        "own loss": (own_loss, "put them together"),
        "one process does all": (one_process, "8 rows at once"),
        "nothing": (lambda *_: None, "is None"),
    },
}
RIGHT = {
    "check_convolution_flops": {
        "loops": flops_by_loops,
        "tensors": flops_by_tensors,
        "numpy": flops_by_numpy,
    },
    "check_gradient_in_pieces": {
        "backward adds up": by_backward,
        "filtered first": filtered_first,
        "weighted means, float64": by_weighted_means,
    },
    "check_combined_statistics": {
        "one after the other": one_after_the_other,
        "squares in 64 bits": by_squares_in_64_bits,
        "numpy": with_numpy,
    },
    "check_shared_gradient": {
        "put back in order": put_back_in_order,
        "through all rows, averaged": sharing(combine=average, seen=lambda own, output: output),
        "slopes of the outputs": through_the_outputs,
    },
}
