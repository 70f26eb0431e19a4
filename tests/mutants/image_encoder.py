"""Answers to the exercises of chapter 06."""

import copy

import numpy as np
import torch
import torch.nn.functional as F


def units(vectors):
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-8)


def nearest(similar=lambda v: units(v) @ units(v).T, out=lambda s: s.fill_diagonal_(-torch.inf), order=lambda i: i):
    """The neighbours, with one place changed."""
    return lambda vectors, k: order(out(similar(vectors)).topk(k, dim=1).indices)


def without_the_first(vectors, k):
    return (units(vectors) @ units(vectors).T).topk(k + 1, dim=1).indices[:, 1:]


def without_all_copies(vectors, k):
    cosines = units(vectors) @ units(vectors).T
    return cosines.masked_fill(cosines > 0.9999, -torch.inf).topk(k, dim=1).indices


def with_nan(vectors, k):
    directions = vectors / vectors.norm(dim=1, keepdim=True)
    return (directions @ directions.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices


def diagonal_zero(vectors, k):
    return (units(vectors) @ units(vectors).T).fill_diagonal_(0).topk(k, dim=1).indices


def in_place(vectors, k):
    vectors /= vectors.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return (vectors @ vectors.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices


def nearest_with_numpy(vectors, k):
    v = vectors.numpy().astype(np.float64)
    v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    similar = v @ v.T
    np.fill_diagonal(similar, -2)
    return np.argsort(-similar, axis=1)[:, :k]


def nearest_by_sorting(vectors, k):
    rows = []
    for i, one in enumerate(vectors):
        cosines = [F.cosine_similarity(one, other, dim=0).item() for other in vectors]
        others = [j for j in range(len(vectors)) if j != i]
        rows.append(sorted(others, key=lambda j, cosines=cosines: -cosines[j])[:k])
    return torch.tensor(rows)


def nearest_by_distance_of_units(vectors, k):
    return torch.cdist(units(vectors), units(vectors)).fill_diagonal_(9).argsort(1)[:, :k]


def embed(change=lambda encoder: encoder.eval(), back=lambda encoder, was: encoder.train(was), last=lambda v: v):
    """The vectors, with one place changed."""

    def embed(encoder, images, batch_size):
        was = encoder.training
        change(encoder)
        with torch.no_grad():
            vectors = torch.cat([encoder(part) for part in images.split(batch_size)])
        back(encoder, was)
        return last(vectors)

    return embed


def drops_the_last(encoder, images, batch_size):
    was = encoder.training
    encoder.eval()
    starts = range(0, len(images) - batch_size + 1, batch_size)
    with torch.no_grad():
        vectors = torch.cat([encoder(images[i : i + batch_size]) for i in starts])
    encoder.train(was)
    return vectors


def only_the_last(encoder, images, batch_size):
    for part in images.split(batch_size):
        vectors = encoder(part)
    return vectors


def keeps_the_graph(encoder, images, batch_size):
    was = encoder.training
    encoder.eval()
    vectors = torch.cat([encoder(part) for part in images.split(batch_size)])
    encoder.train(was)
    return vectors


def all_at_once(encoder, images, batch_size):
    was = encoder.training
    with torch.no_grad():
        vectors = encoder.eval()(images)
    encoder.train(was)
    return vectors


def on_a_copy(encoder, images, batch_size):
    other = copy.deepcopy(encoder).eval()
    return torch.cat([other(part).detach() for part in images.split(batch_size)])


def into_a_table(encoder, images, batch_size):
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            rows.extend(encoder(images[start : start + batch_size]).numpy())
    for module, mode in modes.items():
        module.training = mode
    return np.stack(rows)


def ridge(small=lambda p, x: p * len(x) * torch.eye(x.shape[1])):
    """Ridge regression, with one place changed."""

    def ridge_with_bias(x, y, penalty):
        a, b = x.mean(0), y.mean(0)
        x, y = x - a, y - b
        weight = torch.linalg.lstsq(x.T @ x + small(penalty, x).to(x), x.T @ y, driver="gelsd").solution
        return weight, b - a @ weight

    return ridge_with_bias


def changed(change):
    """The right weight and bias, changed at the end."""
    return lambda x, y, penalty: change(*ridge()(x, y, penalty), x, y)


def bias_penalised(x, y, penalty):
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    both = torch.linalg.lstsq(x.T @ x + penalty * len(x) * torch.eye(x.shape[1]).to(x), x.T @ y).solution
    return both[:-1], both[-1]


def without_bias(x, y, penalty):
    weight = torch.linalg.solve(x.T @ x + penalty * len(x) * torch.eye(x.shape[1]).to(x), x.T @ y)
    return weight, torch.zeros(y.shape[1])


def column_of_ones(x, y, penalty):
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
    diagonal = torch.full((x.shape[1],), penalty * len(x), dtype=torch.float64)
    diagonal[-1] = 0
    both = torch.linalg.solve(x.T @ x + torch.diag(diagonal), x.T @ y.double())
    return both[:-1], both[-1]


def smaller_matrix(x, y, penalty):
    a, b = x.mean(0), y.mean(0)
    x, y = x - a, y - b
    if penalty == 0:
        weight = torch.linalg.lstsq(x, y).solution
    else:
        weight = x.T @ torch.linalg.solve(x @ x.T + penalty * len(x) * torch.eye(len(x)).to(x), y)
    return weight, b - a @ weight


def ridge_with_numpy(x, y, penalty):
    x, y = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    gain = np.divide(s, s**2 + penalty * len(x), out=np.zeros_like(s), where=s > 1e-9)
    weight = v.T @ (gain[:, None] * (u.T @ (y - y.mean(0))))
    return weight, y.mean(0) - x.mean(0) @ weight


def normalise(x):
    return F.batch_norm(x, None, None, training=True)


def way(images, shortcut, stride):
    return images if shortcut is None else normalise(F.conv2d(images, shortcut, stride=stride))


def through(images, weight1, weight2, stride, between=torch.relu):
    x = between(normalise(F.conv2d(images, weight1, stride=stride, padding=1)))
    return normalise(F.conv2d(x, weight2, padding=1))


def block(join=lambda x, y: (x + y).relu(), around=way, between=torch.relu):
    """The block, with one place changed."""

    def residual_block(images, weight1, weight2, shortcut, stride):
        return join(through(images, weight1, weight2, stride, between), around(images, shortcut, stride))

    return residual_block


def stride_twice(images, weight1, weight2, shortcut, stride):
    x = normalise(F.conv2d(images, weight1, stride=stride, padding=1)).relu()
    x = normalise(F.conv2d(x, weight2, stride=stride, padding=1))
    return (x + way(images, shortcut, stride * stride)).relu()


def bare(images, shortcut, stride):
    return images if shortcut is None else F.conv2d(images, shortcut, stride=stride)


def block_in_place(images, weight1, weight2, shortcut, stride):
    x = through(images, weight1, weight2, stride)
    if shortcut is None:
        images += x
        return images.relu()
    return (x + way(images, shortcut, stride)).relu()


def by_one_matrix(images, weight1, weight2, shortcut, stride):
    x = through(images, weight1, weight2, stride)
    if shortcut is None:
        return torch.clamp(images + x, min=0)
    some = images[:, :, ::stride, ::stride]
    return torch.clamp(normalise(torch.einsum("bchw,oc->bohw", some, shortcut[:, :, 0, 0])) + x, min=0)


def by_hand(images, weight1, weight2, shortcut, stride):
    def scaled(x):
        mean = x.mean((0, 2, 3), keepdim=True)
        return (x - mean) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    images, weight1, weight2 = images.double(), weight1.double(), weight2.double()
    out = scaled(F.conv2d(scaled(F.conv2d(images, weight1, None, stride, 1)).relu(), weight2, None, 1, 1))
    if shortcut is not None:
        padded = F.pad(shortcut.double(), [1, 1, 1, 1])  # a 3 x 3 kernel that is 0 but in its middle
        images = scaled(F.conv2d(images, padded, None, stride, 1))
    out += images
    return out.relu()


WRONG = {
    "check_nearest": {
        "itself": (nearest(out=lambda s: s), "its own nearest"),
        "products": (nearest(similar=lambda v: v @ v.T), "long vectors win"),
        "distance": (nearest(similar=lambda v: -torch.cdist(v, v)), "near by distance"),
        "farthest": (nearest(similar=lambda v: -(units(v) @ units(v).T)), "farthest"),
        "the best last": (nearest(order=lambda i: i.flip(1)), "should stand first"),
        "columns": (nearest(similar=lambda v: F.normalize(v, dim=0) @ F.normalize(v, dim=0).T), "divide every row"),
        "centred": (nearest(similar=lambda v: units(v - v.mean(0)) @ units(v - v.mean(0)).T), "mean of all vectors"),
        "cosines": (lambda v, k: (units(v) @ units(v).T).fill_diagonal_(-2).topk(k).values, "returns the cosines"),
        "not the first": (without_the_first, "by number, not by place"),
        "no copies": (without_all_copies, "not its nearest neighbours"),
        "0/0": (with_nan, "a vector of zeros"),
        "diagonal zero": (diagonal_zero, "so 0 is not worst"),
        "one neighbour": (lambda v, k: nearest()(v, 1)[:, 0], "(vectors, neighbours)"),
        "in place": (in_place, "changes its inputs"),
    },
    "check_embed": {
        "train mode": (embed(change=lambda encoder: None), "in train mode"),
        "train mode, all at once": (lambda encoder, images, n: encoder(images).detach(), "gets all pictures at once"),
        "left in eval mode": (embed(back=lambda encoder, was: None), "was in train mode and is in eval mode"),
        "always back to train": (
            embed(back=lambda encoder, was: encoder.train()),
            "was in eval mode and is in train mode",
        ),
        "last batch missing": (drops_the_last, "last three pictures are missing"),
        "last batch only": (only_the_last, "of the last batch"),
        "graph": (keeps_the_graph, "want a gradient"),
        "all at once": (all_at_once, "11 pictures at a time"),
        "unit": (embed(last=lambda v: F.normalize(v, dim=1)), "scaled to length 1"),
        "frozen": (embed(change=lambda encoder: encoder.eval().requires_grad_(False)), "want no gradient any more"),
        "a list": (embed(last=list), "return a tensor"),
    },
    "check_ridge_with_bias": {
        "bias penalised": (bias_penalised, "bias is penalised"),
        "no bias": (without_bias, "there is no bias"),
        "mean of y": (changed(lambda w, b, x, y: (w, y.mean(0))), "the bias is the mean of y"),
        "bias 0": (changed(lambda w, b, x, y: (w, 0 * b)), "the bias is 0"),
        "sign": (changed(lambda w, b, x, y: (w, -b)), "sign of the bias"),
        "no N": (ridge(small=lambda p, x: p * torch.eye(x.shape[1])), "times the number of pictures"),
        "numbers, not pictures": (
            ridge(small=lambda p, x: p * x.shape[1] * torch.eye(x.shape[1])),
            "counts the numbers of a picture",
        ),
        "no eye": (ridge(small=lambda p, x: p * len(x) * torch.ones(1)), "belongs on the diagonal"),
        "no penalty": (ridge(small=lambda p, x: torch.zeros(1)), "the penalty is not used"),
        "squared": (ridge(small=lambda p, x: p**2 * len(x) * torch.eye(x.shape[1])), "the penalty is squared"),
        "swapped": (changed(lambda w, b, x, y: (b, w)), "(numbers a picture, outputs)"),
        "one tensor": (changed(lambda w, b, x, y: w), "return 2 values"),
        "transposed": (changed(lambda w, b, x, y: (w.T, b)), "(numbers a picture, outputs)"),
        "bias as a row": (changed(lambda w, b, x, y: (w, b[None])), "one number for each output"),
        "no penalty for few pictures": (
            lambda x, y, p: ridge()(x, y, p if len(x) != 5 else 0.0),
            "5 pictures of 8 numbers",
        ),
    },
    "check_residual_block": {
        "plain": (block(lambda x, y: x.relu()), "the way round is missing"),
        "ReLU before": (block(lambda x, y: x.relu() + y), "comes before the sum"),
        "two ReLUs before": (block(lambda x, y: x.relu() + y.relu()), "nothing can be taken back"),
        "no ReLU": (block(lambda x, y: x + y), "last ReLU is missing"),
        "subtracted": (block(lambda x, y: (x - y).relu()), "is subtracted"),
        "side by side": (block(lambda x, y: torch.cat([y, x], 1).relu()), "side by side"),
        "mean": (block(lambda x, y: ((x + y) / 2).relu()), "averaged"),
        "sum normalised": (block(lambda x, y: normalise(x + y).relu()), "the sum is normalised"),
        "identity normalised": (
            block(around=lambda i, s, n: normalise(i) if s is None else way(i, s, n)),
            "although there is no shortcut",
        ),
        "nothing between": (block(between=lambda x: x), "between the two convolutions"),
        "not normalised": (block(around=bare), "the way round is not normalised"),
        "ReLU of its own": (
            block(around=lambda i, s, n: i if s is None else way(i, s, n).relu()),
            "a ReLU of its own",
        ),
        "pooled": (
            block(around=lambda i, s, n: i if s is None else way(F.avg_pool2d(i, n, ceil_mode=True), s, 1)),
            "by averaging",
        ),
        "normalised, then smaller": (
            block(around=lambda i, s, n: i if s is None else way(i, s, 1)[:, :, ::n, ::n]),
            "before it is made smaller",
        ),
        "no stride around": (block(around=lambda i, s, n: way(i, s, 1)), "RuntimeError"),
        "no shortcut": (block(around=lambda i, s, n: i), "RuntimeError"),
        "stride twice": (stride_twice, "only the stride makes the picture smaller"),
        "detached": (block(around=lambda i, s, n: way(i, s, n).detach()), "gets no slope"),
        "in place": (block_in_place, "changes its inputs"),
    },
}
RIGHT = {
    "check_nearest": {
        "numpy": nearest_with_numpy,
        "sorted": nearest_by_sorting,
        "distance of directions": nearest_by_distance_of_units,
    },
    "check_embed": {
        "on a copy": on_a_copy,
        "numpy": into_a_table,
        "one by one": lambda encoder, images, n: embed()(encoder, images, 1),
    },
    "check_ridge_with_bias": {
        "column of ones": column_of_ones,
        "smaller matrix": smaller_matrix,
        "numpy": ridge_with_numpy,
    },
    "check_residual_block": {
        "a matrix for the way round": by_one_matrix,
        "float64, by hand": by_hand,
    },
}
