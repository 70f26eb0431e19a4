"""Answers to the exercises of chapter 10."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.losses import discriminator_loss, generator_loss, r1_penalty, saturating_generator_loss, softplus

# ---- 10.1


def kl(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


def divergence(formula):
    """An answer from p, q and their average."""
    return lambda p, q: formula(p, q, (p + q) / 2)


def with_nan(p, q):
    m = (p + q) / 2
    return ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2


def only_common(p, q):
    common = (p > 0) & (q > 0)
    return with_nan(p[common], q[common])


def by_numbers(p, q):
    total = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        middle = (a + b) / 2
        total += sum(x * math.log(x / middle) / 2 for x in (a, b) if x > 0)
    return total


def by_entropies(p, q):
    p, q = p.double(), q.double()
    return (torch.special.entr((p + q) / 2) - (torch.special.entr(p) + torch.special.entr(q)) / 2).sum()


def by_numpy(p, q):
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    m = (p + q) / 2
    parts = [np.sum(x[x > 0] * np.log(x[x > 0] / m[x > 0])) for x in (p, q)]
    return np.mean(parts)


# ---- 10.2


def duel(of_d, of_g=lambda r, f: softplus(r - f).mean()):
    return lambda r, f: (of_d(r, f), of_g(r, f))


def right_d(r, f):
    return softplus(f - r).mean()


def by_labels(r, f):
    lead, ones = (r - f).double(), torch.ones(len(r), dtype=torch.float64)
    return [F.binary_cross_entropy_with_logits(sign * lead, ones) for sign in (1, -1)]


def by_two_classes(r, f):
    both = torch.stack([r, f], 1).log_softmax(1)  # (B, 2)
    return -both[:, 0].mean(), -both[:, 1].mean()


# ---- 10.3


def one_round(
    detach=True,
    clear="before",
    d_loss=discriminator_loss,
    g_loss=generator_loss,
    detach_g=False,
    step_d=True,
    told=None,
):
    """An answer with one of its parts replaced."""

    def answer(generator, discriminator, optimizer_g, optimizer_d, real, noise):
        fake = generator(noise)
        loss_d = d_loss(discriminator(real), discriminator(fake.detach() if detach else generator(noise)))
        if clear == "before":
            optimizer_d.zero_grad()
        loss_d.backward()
        if step_d:
            optimizer_d.step()
        if clear == "after":
            optimizer_d.zero_grad()
        loss_g = g_loss(discriminator(fake.detach().requires_grad_() if detach_g else fake))
        if clear == "before" and detach:
            optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        if clear == "after":
            optimizer_g.zero_grad()
        return told(loss_d, loss_g) if told else (loss_d.item(), loss_g.item())

    return answer


def judged_by_the_old(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    fake = generator(noise)
    fake_logits = discriminator(fake)
    loss_g = generator_loss(fake_logits)
    optimizer_g.zero_grad()
    loss_g.backward()
    loss_d = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    optimizer_g.step()
    return loss_d.item(), loss_g.item()


def forger_first(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    loss_g = generator_loss(discriminator(generator(noise)))
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    loss_d = discriminator_loss(discriminator(real), discriminator(generator(noise).detach()))
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    return loss_d.item(), loss_g.item()


def common_loss(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    fake_logits = discriminator(generator(noise))
    loss_d, loss_g = discriminator_loss(discriminator(real), fake_logits), generator_loss(fake_logits)
    optimizer_g.zero_grad(), optimizer_d.zero_grad()
    (loss_d + loss_g).backward()
    optimizer_g.step(), optimizer_d.step()
    return loss_d.item(), loss_g.item()


def forger_moves_both(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    fake = generator(noise)
    loss_d = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = generator_loss(discriminator(fake))
    optimizer_g.zero_grad(), optimizer_d.zero_grad()
    loss_g.backward()
    optimizer_g.step(), optimizer_d.step()
    return loss_d.item(), loss_g.item()


def left_frozen(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    result = one_round()(generator, discriminator, optimizer_g, optimizer_d, real, noise)
    discriminator.requires_grad_(False)
    return result


def old_logits_used(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    fake_logits = discriminator(generator(noise))
    loss_d = discriminator_loss(discriminator(real), fake_logits)
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = generator_loss(fake_logits)  # its graph is gone
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    return loss_d.item(), loss_g.item()


def graph_retained(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    optimizer_g.zero_grad(), optimizer_d.zero_grad()
    fake = generator(noise)
    loss_d = discriminator_loss(discriminator(real), discriminator(fake))
    loss_d.backward(retain_graph=True)
    optimizer_d.step()
    loss_g = generator_loss(discriminator(fake))
    loss_g.backward()
    optimizer_g.step()
    return loss_d.item(), loss_g.item()


def frozen_and_thawed(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    with torch.no_grad():
        fake = generator(noise)
    optimizer_d.zero_grad()
    real_logits, fake_logits = discriminator(torch.cat([real, fake])).chunk(2)
    loss_d = discriminator_loss(real_logits, fake_logits)
    loss_d.backward()
    optimizer_d.step()
    discriminator.requires_grad_(False)
    optimizer_g.zero_grad()
    loss_g = generator_loss(discriminator(generator(noise)))
    loss_g.backward()
    optimizer_g.step()
    discriminator.requires_grad_(True)
    return loss_d, loss_g


def slopes_by_hand(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    told, fake = [], generator(noise)
    for player, optimizer in ((discriminator, optimizer_d), (generator, optimizer_g)):
        if player is discriminator:
            loss = F.softplus(-player(real)).mean() + F.softplus(player(fake)).mean()
        else:
            loss = -F.logsigmoid(discriminator(fake)).mean()
        parameters = list(player.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
            parameter.grad = slope
        optimizer.step()
        told.append(loss.item())
    return told


def all_cleared(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    loss_d = discriminator_loss(discriminator(real), discriminator(generator(noise)))
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = generator_loss(discriminator(generator(noise)))
    optimizer_g.zero_grad()  # what D's loss left in G goes here
    loss_g.backward()
    optimizer_g.step()
    return loss_d.item(), loss_g.item()


# ---- 10.4


def penalty(
    logits=lambda x: x.sum(), gather=lambda s: s.square().flatten(1).sum(1).mean(), factor=lambda g: g / 2, graph=True
):
    """An answer with one of its parts replaced."""

    def answer(discriminator, images, gamma):
        images = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(logits(discriminator(images)), images, create_graph=graph)
        return factor(gamma) * gather(slope)

    return answer


def by_backward(discriminator, images, gamma):
    images = images.detach().requires_grad_()
    discriminator(images).sum().backward()
    return gamma / 2 * images.grad.square().flatten(1).sum(1).mean()


def without_a_wish(discriminator, images, gamma):
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gamma / 2 * slope.square().flatten(1).sum(1).mean()


def of_logits(discriminator, images, gamma):
    return gamma / 2 * discriminator(images).square().mean()


def picture_by_picture(discriminator, images, gamma):
    total = 0.0
    for image in images:
        image = image[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(image)[0], image, create_graph=True)
        total = total + (slope**2).sum()
    return gamma * total / (2 * len(images))


def by_vjp(discriminator, images, gamma):
    _, slope = torch.autograd.functional.vjp(discriminator, images, torch.ones(len(images)), create_graph=True)
    return 0.5 * gamma * torch.linalg.vector_norm(slope.flatten(1).double(), dim=1).square().mean()


def of_the_library(discriminator, images, gamma):
    images = images.clone().requires_grad_()
    return gamma * r1_penalty(discriminator(images), images)


WRONG = {
    "check_jensen_shannon": {
        "one KL": (kl, "KL divergence of p from q"),
        "the other KL": (lambda p, q: kl(q, p), "KL divergence of q from p"),
        "both KLs": (lambda p, q: (kl(p, q) + kl(q, p)) / 2, "compare each with the average"),
        "sum": (divergence(lambda p, q, m: kl(p, m) + kl(q, m)), "sum of the two divergences"),
        "only p": (divergence(lambda p, q, m: kl(p, m)), "q is not"),
        "wrong way": (divergence(lambda p, q, m: (kl(m, p) + kl(m, q)) / 2), "wrong way"),
        "average without 1/2": (lambda p, q: (kl(p, p + q) + kl(q, p + q)) / 2, "without the 1/2"),
        "bits": (divergence(lambda p, q, m: (kl(p, m) + kl(q, m)) / 2 / math.log(2)), "in bits"),
        "sign": (divergence(lambda p, q, m: -(kl(p, m) + kl(q, m)) / 2), "a divergence is positive"),
        "root": (divergence(lambda p, q, m: ((kl(p, m) + kl(q, m)) / 2).sqrt()), "root of it"),
        "what D pays": (
            divergence(lambda p, q, m: 2 * math.log(2) - kl(p, m) - kl(q, m)),
            "what the best D pays",
        ),
        "mean over kinds": (divergence(lambda p, q, m: (kl(p, m) + kl(q, m)) / 2 / len(p)), "mean over the kinds"),
        "each kind": (lambda p, q: p * (p / (p + q)).log(), "add up over the kinds"),
        "zeros": (with_nan, "0 times log 0"),
        "zeros left out": (only_common, "only one side has"),
        "nan to 0": (lambda p, q: with_nan(p, q).nan_to_num(), "`nan` was made 0"),
    },
    "check_relativistic_losses": {
        "swapped": (duel(lambda r, f: softplus(r - f).mean(), right_d), "two losses are swapped"),
        "saturating": (duel(right_d, lambda r, f: -right_d(r, f)), "saturating"),
        "same for both": (duel(right_d, right_d), "G wishes the contrary"),
        "usual D": (duel(discriminator_loss), "judges each picture alone"),
        "usual G": (duel(right_d, lambda r, f: generator_loss(f)), "the forgery alone"),
        "all pairs": (duel(lambda r, f: softplus(f - r[:, None]).mean()), "every real picture with every forgery"),
        "mean forgery": (duel(lambda r, f: softplus(f.mean() - r).mean()), "with the mean forgery"),
        "means compared": (duel(lambda r, f: softplus((f - r).mean())), "mean of the costs"),
        "no logarithm": (duel(lambda r, f: -torch.sigmoid(r - f).mean()), "minus its logarithm"),
        "probabilities compared": (
            duel(lambda r, f: softplus(torch.sigmoid(f) - torch.sigmoid(r)).mean()),
            "compares probabilities",
        ),
        "sum": (duel(lambda r, f: softplus(f - r).sum()), "you summed"),
        "each pair": (duel(lambda r, f: softplus(f - r)), "mean over the pairs"),
        "sigmoid first": (
            duel(
                lambda r, f: -torch.sigmoid(r - f).log().mean(),
                lambda r, f: -torch.sigmoid(f - r).log().mean(),
            ),
            "sigmoid is rounded",
        ),
        "one loss": (lambda r, f: right_d(r, f), "return 2 values"),
        "difference clamped": (
            duel(
                lambda r, f: softplus((f - r).clamp(-30, 30)).mean(),
                lambda r, f: softplus((r - f).clamp(-30, 30)).mean(),
            ),
            "use softplus of the difference",
        ),
        "D's detached": (duel(lambda r, f: right_d(r, f).detach()), "no gradient flows"),
    },
    "check_play_round": {
        "as it was": (one_round(detach=False, clear="after"), "have leaked into G"),
        "only detached": (one_round(clear="after"), "2/3 in place of 1/2"),
        "nothing cleared": (one_round(clear="never"), "nobody clears them"),
        "cleared but leaking": (one_round(detach=False), "have leaked into G"),
        "graph retained": (graph_retained, "have leaked into G"),
        "judged by the old D": (judged_by_the_old, "as it was before its step"),
        "old logits": (old_logits_used, "RuntimeError"),
        "G first": (forger_first, "D is first"),
        "common loss": (common_loss, "paid for its own defeat"),
        "G moves both": (forger_moves_both, "only G may move"),
        "saturating": (one_round(g_loss=saturating_generator_loss), "saturating loss"),
        "labels swapped": (one_round(d_loss=lambda r, f: discriminator_loss(f, r)), "labels are swapped"),
        "G uphill": (one_round(g_loss=lambda f: -generator_loss(f)), "G goes uphill"),
        "G detached": (one_round(detach_g=True), "G has not moved"),
        "D stands": (one_round(step_d=False), "D has not moved"),
        "left frozen": (left_frozen, "must be thawed"),
        "losses swapped": (one_round(told=lambda d, g: (g.item(), d.item())), "losses are swapped"),
        "sum told": (one_round(told=lambda d, g: (d + g).item()), "return 2 values"),
        "nothing told": (one_round(told=lambda d, g: None), "is None"),
    },
    "check_gradient_penalty": {
        "mean over numbers": (penalty(gather=lambda s: s.square().mean()), "over the numbers of a picture"),
        "sum over the batch": (penalty(gather=lambda s: s.square().sum()), "added up over the batch"),
        "no half": (penalty(factor=lambda g: g), "1/2 is missing"),
        "no gamma": (penalty(factor=lambda g: 0.5), "gamma is missing"),
        "not squared": (penalty(gather=lambda s: s.flatten(1).norm(dim=1).mean()), "not squared"),
        "mean of logits": (penalty(logits=lambda x: x.mean()), "slope of the *mean* logit"),
        "WGAN-GP": (
            penalty(gather=lambda s: (s.flatten(1).norm(dim=1) - 1).square().mean(), factor=lambda g: g),
            "WGAN-GP",
        ),
        "no graph": (penalty(graph=False), "create_graph"),
        "backward": (by_backward, "leaves slopes in D's weights"),
        "no slope wanted": (without_a_wish, "RuntimeError"),
        "of the logits": (of_logits, "logits are squared"),
        "one for each": (penalty(gather=lambda s: s.square().flatten(1).sum(1)), "one number"),
        "sum first": (penalty(gather=lambda s: s.flatten(1).sum(1).square().mean()), "before they are squared"),
        "mean slope": (penalty(gather=lambda s: s.mean(0).square().sum()), "mean slope of the batch"),
        "absolute": (penalty(gather=lambda s: s.abs().flatten(1).sum(1).mean()), "absolute values"),
        "four dimensions": (
            penalty(gather=lambda s: s.square().sum((1, 2, 3)).mean()),
            "IndexError",
        ),
    },
}
RIGHT = {
    "check_jensen_shannon": {"numbers": by_numbers, "entropies, float64": by_entropies, "numpy": by_numpy},
    "check_relativistic_losses": {
        "labels, float64": by_labels,
        "two classes": by_two_classes,
        "log-sigmoid": duel(lambda r, f: -F.logsigmoid(r - f).mean(), lambda r, f: -F.logsigmoid(f - r).mean()),
    },
    "check_play_round": {
        "frozen and thawed": frozen_and_thawed,
        "slopes by hand": slopes_by_hand,
        "all cleared": all_cleared,
    },
    "check_gradient_penalty": {"loop": picture_by_picture, "vjp, float64": by_vjp, "library": of_the_library},
}
