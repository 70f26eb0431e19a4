"""Checks of the exercises of chapter 10: a divergence, relativistic losses, a round of the game, a gradient penalty."""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from course_lib.checks.core import Answer, gradient_of, random, several
from course_lib.gan import MLP, MLPDiscriminator
from course_lib.optim import Adam, GradientDescent


def check_jensen_shannon(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 10.1: the Jensen-Shannon divergence, with shares of 0.

    Args:
        function: jensen_shannon(p, q), two lists of shares (K,) -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("jensen_shannon", function)
    p, q = random(seed, 5).softmax(0), (2 * random(seed + 1, 5)).softmax(0)

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()

    def right(p: Tensor, q: Tensor) -> Tensor:
        return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2

    wanted = right(p, q)
    value = answer.expect_shape(answer(p, q), (), "one number; add up over the kinds")
    mistakes = {
        "that is the KL divergence of p from q; both are to be compared with their average": kl(p, q),
        "that is the KL divergence of q from p; both are to be compared with their average": kl(q, p),
        "that is the mean of both KL divergences between p and q; compare each with the average": (
            (kl(p, q) + kl(q, p)) / 2
        ),
        "that is the sum of both KL divergences between p and q; compare each with the average": kl(p, q) + kl(q, p),
        "that is the sum of the two divergences; take their mean": 2 * wanted,
        "p is compared with the average, q is not": kl(p, (p + q) / 2),
        "p is compared with the average, q is not, and the result is halved": kl(p, (p + q) / 2) / 2,
        "q is compared with the average, p is not": kl(q, (p + q) / 2),
        "the average is p + q without the 1/2": wanted - math.log(2),
        "the KL divergences run the wrong way, from the average to p and q": (
            (kl((p + q) / 2, p) + kl((p + q) / 2, q)) / 2
        ),
        "that is in bits; take the natural logarithm": wanted / math.log(2),
        "the sign is wrong; a divergence is positive": -wanted,
        "you took the mean over the kinds; add up": wanted / 5,
        "that is the root of it (the Jensen-Shannon distance)": wanted.sqrt(),
        "that is what the best D pays, 2 log 2 - 2 JSD": 2 * math.log(2) - 2 * wanted,
    }
    answer.expect(value, wanted, "the divergence of two lists of five shares", mistakes)
    answer.expect(answer(q, p), wanted, "the divergence the other way round", hint="It should be the same.")
    answer.expect(answer(p, p), 0.0, "the divergence of equal lists")
    answer.verify("values are right, the same both ways, and 0 for equal lists")
    hint = "0 times log 0 counts as 0, also where both are 0; on each side leave out what has the share 0 there"
    for first, second in (([1.0, 0.0], [0.0, 1.0]), ([0.5, 0.5, 0.0], [0.0, 0.5, 0.5]), ([0.0, 1.0], [0.0, 1.0])):
        first, second = torch.tensor(first), torch.tensor(second)
        both = ((first > 0) & (second > 0)).float()
        parts = (torch.xlogy(x, x) - torch.xlogy(x, (first + second) / 2) for x in (first, second))
        mistakes = {
            "kinds that only one side has were left out (or `nan` was made 0); for the side that has them they count": (
                sum((part * both).sum() for part in parts) / 2
            )
        }
        what = f"the divergence of {first.tolist()} and {second.tolist()}"
        answer.expect(answer(first, second), right(first, second), what, mistakes, hint=hint)
    answer.verify("shares of 0 are right; nothing in common gives log 2")
    answer.passed()


def check_relativistic_losses(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 10.2: what both players pay when D compares a real picture with the forgery beside it.

    Args:
        function: relativistic_losses(real_logits, fake_logits), (B,) and (B,) -> D's and G's loss, () each.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("relativistic_losses", function), ("D's loss", "G's loss")
    real, fake = random(seed, 6) + 1, random(seed + 1, 6) - 0.5
    lead = real - fake
    cost, wish = F.softplus(-lead), F.softplus(lead)
    loss_d, loss_g = several(answer, answer(real, fake), names)
    for loss, name in ((loss_d, names[0]), (loss_g, names[1])):
        answer.expect_shape(loss, (), "one number; take the mean over the pairs", name)
    alone = F.softplus(-real).mean()
    mistakes = {
        "the two losses are swapped; D wishes the real one to be more real": wish.mean(),
        "that is the usual game, which judges each picture alone": alone + F.softplus(fake).mean(),
        "only the real picture is judged": alone,
        "that compares every real picture with every forgery; compare those in the same row": (
            F.softplus(fake - real[:, None]).mean()
        ),
        "that compares each real picture with the mean forgery; compare those in the same row": (
            F.softplus(fake.mean() - real).mean()
        ),
        "that compares only the two means; take the mean of the costs, not of the logits": F.softplus(-lead.mean()),
        "that is minus the probability; take minus its logarithm": -torch.sigmoid(lead).mean(),
        "that compares probabilities; compare the logits": (
            F.softplus(torch.sigmoid(fake) - torch.sigmoid(real)).mean()
        ),
        "you summed; take the mean": cost.sum(),
        "the sign is wrong: it is to be minimised": -cost.mean(),
        "that is the loss without a logarithm (of a Wasserstein GAN)": -lead.mean(),
    }
    answer.expect(loss_d, cost.mean(), "D's loss for six pairs", mistakes)
    mistakes = {
        "that is minus D's loss, the saturating game: G would starve where D is sure": -cost.mean(),
        "that is D's loss; G wishes the contrary": cost.mean(),
        "that is the usual loss of G, which looks at the forgery alone": F.softplus(-fake).mean(),
        "you summed; take the mean": wish.sum(),
        "the sign is wrong: it is to be minimised": -wish.mean(),
        "that compares every real picture with every forgery; compare those in the same row": (
            F.softplus(real[:, None] - fake).mean()
        ),
        "that is the loss without a logarithm (of a Wasserstein GAN)": lead.mean(),
    }
    answer.expect(loss_g, wish.mean(), "G's loss for six pairs", mistakes)
    answer.verify("both losses are right")
    for one, other in ((1002.0, 999.0), (100.0, -100.0), (-100.0, 100.0), (1e4, -1e4)):
        pair = torch.tensor([one]), torch.tensor([other])
        found = several(answer, answer(*pair), names)
        right = F.softplus(pair[1] - pair[0]).mean(), F.softplus(pair[0] - pair[1]).mean()
        hint = "a sigmoid is rounded to 0 or 1 there; use softplus of the difference"
        for loss, wanted, name in zip(found, right, names, strict=True):
            answer.expect(loss, wanted, f"{name} for the logits {one:g} and {other:g}", hint=hint)
    answer.verify("logits of any size are right, and only the difference counts")

    def part(which: int) -> Answer:
        return Answer("relativistic_losses", lambda *given: function(*given)[which])

    sure = torch.tensor([50.0, 2.0, 0.0]), torch.tensor([-50.0, -1.0, 0.0])
    part(0).expect_gradient(sure, lambda r, f: F.softplus(f - r).mean(), "the slope of D's loss")
    of_g = Answer("relativistic_losses", lambda forged: function(sure[0], forged)[1])
    what = "the slope of G's loss by the forged logits"
    of_g.expect_gradient((sure[1],), lambda forged: F.softplus(sure[0] - forged).mean(), what)
    answer.verify("slopes agree: where D is sure, G's is the largest")
    answer.passed()


# ---- 10.3


def flat(network: Module) -> Tensor:
    """All weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def slopes(loss: Tensor, network: Module) -> Tensor:
    """Of a loss by all weights of a network, in one row."""
    found = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found])


def stepped(network: Module, row: Tensor, lr: float) -> Module:
    """A copy of the network, moved down these slopes."""
    moved = copy.deepcopy(network)
    torch.nn.utils.vector_to_parameters(flat(network) - lr * row, moved.parameters())
    return moved


def cost_of_d(D: Module, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises."""
    return F.softplus(-D(real)).mean() + F.softplus(D(fake)).mean()


def cost_of_g(D: Module, fake: Tensor) -> Tensor:
    """What G minimises."""
    return F.softplus(-D(fake)).mean()


def check_play_round(function: Callable[..., tuple[float, float]], seed: int = 0) -> None:
    """Exercise 10.3: the mended round of the game.

    Args:
        function: play_round(generator, discriminator, optimizer_g, optimizer_d, real, noise) -> D's and G's loss; it
            moves both players.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        players = MLP([2, 8, 1], True).double(), MLPDiscriminator(1, 8, 1).double()
    answer, names, lr = Answer("play_round", function), ("D's loss", "G's loss"), 0.2
    real = [random(seed + i, 6, 1).double() + 2 for i in range(5)]
    noise = [random(seed + 10 + i, 6, 2).double() for i in range(5)]

    def play(optimizer: type, rounds: int, **settings: float) -> tuple[Module, Module, list[Tensor]]:
        """The learner's rounds: both players and the last losses."""
        G, D = copy.deepcopy(players)
        optimizers = [optimizer(player.parameters(), **settings) for player in (G, D)]
        for number in range(rounds):
            given = (G, D, *optimizers, real[number].clone(), noise[number].clone())
            losses = several(answer, answer.run((given, {})), names)
        return G, D, losses

    G, D = players
    fake = G(noise[0])
    of_d, of_g = cost_of_d(D, real[0], fake.detach()), cost_of_g(D, fake)
    first = slopes(of_d, D)
    new_d = stepped(D, first, lr)
    right_g = slopes(cost_of_g(new_d, fake), G)
    found_g, found_d, losses = play(GradientDescent, 1, lr=lr)
    renewed = stepped(G, slopes(of_g, G), lr)
    both = of_d + of_g
    mistakes = {
        "D has not moved": flat(D),
        "D goes uphill": flat(D) + lr * first,
        "D's labels are swapped; it learns to call forgeries real": (
            flat(D) - lr * slopes(cost_of_d(D, fake, real[0]), D)
        ),
        "D answers to a G that has already moved; D is first": (
            flat(D) - lr * slopes(cost_of_d(D, real[0], renewed(noise[0])), D)
        ),
        "the slopes of G's loss are in D's step: D is paid for its own defeat": flat(D) - lr * slopes(both, D),
        "G's answer moves D too; only G may move then": (
            flat(new_d) - lr * slopes(cost_of_g(new_d, fake.detach()), new_d)
        ),
        "D sees no real points": flat(D) - lr * slopes(F.softplus(D(fake)).mean(), D),
        "D sees no forgeries": flat(D) - lr * slopes(F.softplus(-D(real[0])).mean(), D),
    }
    hint = "Is it one step of optimizer_d down discriminator_loss?"
    answer.expect(flat(found_d), flat(new_d), "the weights of D after one round", mistakes, hint=hint)
    answer.verify("D's answer is right")
    leaked = slopes(cost_of_d(D, real[0], fake), G)
    mistakes = {
        "the slopes of D's loss have leaked into G, which now helps D; detach the forgeries in D's answer": (
            flat(G) - lr * (right_g + leaked)
        ),
        "the slopes of D's loss have leaked into G, and G is judged by D as it was before its step": (
            flat(G) - lr * (slopes(of_g, G) + leaked)
        ),
        "G is judged by D as it was before its step; ask D again": flat(renewed),
        "G minimises D's loss; it wants the contrary": flat(G) - lr * slopes(cost_of_d(new_d, real[0], fake), G),
        "G has the saturating loss; use generator_loss": (flat(G) - lr * slopes(-F.softplus(new_d(fake)).mean(), G)),
        "G goes uphill": flat(G) + lr * right_g,
        "G has not moved: is there a `detach` (or no `step`) in its own answer too?": flat(G),
        "G answers twice": flat(stepped(renewed, slopes(cost_of_g(new_d, renewed(noise[0])), renewed), lr)),
    }
    hint = "Is it one step of optimizer_g down generator_loss, with the same noise, through the new D?"
    answer.expect(flat(found_g), flat(G) - lr * right_g, "the weights of G after one round", mistakes, hint=hint)
    answer.verify("so is G's, to the D that has just learned")
    if not all(parameter.requires_grad for player in (found_g, found_d) for parameter in player.parameters()):
        answer.fail("afterwards some weights want no slope any more; who is frozen must be thawed")
    swapped = "the two losses are swapped; return D's first"
    answer.expect(losses[0].double(), of_d, "D's loss", {swapped: cost_of_g(new_d, fake)}, 1e-4)
    mistakes = {"that is what the D from before its step says; G's answer is to the new D": of_g}
    answer.expect(losses[1].double(), cost_of_g(new_d, fake), "G's loss", mistakes, 1e-4)
    answer.verify("both losses are told")
    new_g = stepped(G, right_g, lr)
    _, found_d, _ = play(GradientDescent, 2, lr=lr)
    second = slopes(cost_of_d(new_d, real[1], new_g(noise[1]).detach()), new_d)
    left = slopes(cost_of_g(new_d, fake.detach()), new_d)
    mistakes = {
        "what G's answer left in D's slopes is in D's step: D is paid for its own defeat, and ends at 2/3 in place of "
        "1/2. Clear D's slopes right before its `backward`": flat(new_d) - lr * (second + left),
        "the slopes of the first round are still there; nobody clears them": flat(new_d) - lr * (second + first),
        "the slopes of the first round and of G's answer are still there; nobody clears them": (
            flat(new_d) - lr * (second + first + left)
        ),
    }
    hint = "Is anything left from the first round?"
    answer.expect(
        flat(found_d), flat(stepped(new_d, second, lr)), "the weights of D after two rounds", mistakes, hint=hint
    )
    answer.verify("nothing is left over for the next round")
    G, D = copy.deepcopy(players)
    optimizers = [Adam(player.parameters(), 0.01) for player in (G, D)]
    for number in range(5):
        for player, optimizer in ((D, optimizers[1]), (G, optimizers[0])):
            fake = G(noise[number])
            loss = cost_of_d(D, real[number], fake.detach()) if player is D else cost_of_g(D, fake)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found_g, found_d, _ = play(Adam, 5, lr=0.01)
    for name, found, wanted in (("D", found_d, D), ("G", found_g, G)):
        answer.expect(flat(found), flat(wanted), f"the weights of {name} after five rounds with Adam", None, 1e-4)
    answer.verify("five rounds with Adam agree")
    answer.passed()


# ---- 10.4


def check_gradient_penalty(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 10.4: the penalty R1 on the slope of the discriminator.

    Args:
        function: gradient_penalty(discriminator, images, gamma), (B, ...) -> logits (B,), (B, ...) and a number -> ().
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, gamma = Answer("gradient_penalty", function), 3.0
    images, weight = random(seed, 4, 3, 2, 5), random(seed + 1, 3, 2, 5).requires_grad_()

    def discriminator(x: Tensor) -> Tensor:
        return (weight * x.square()).flatten(1).sum(1) / 2 + (weight * x).flatten(1).sum(1)

    slope = weight.detach() * (images + 1)
    squared = slope.square().flatten(1).sum(1)  # (B,)
    right = gamma / 2 * squared.mean()
    found = answer(discriminator, images, gamma)
    found = answer.expect_shape(found, (), "a penalty is one number; take the mean over the pictures at the end")
    logits = discriminator(images)
    (by_weight,) = torch.autograd.grad(logits.sum(), weight)
    mistakes = {
        "you took the mean over the numbers of a picture; add up their squares, that is the squared length": right / 30,
        "you added up over the batch; take its mean": 4 * right,
        "the 1/2 is missing": 2 * right,
        "gamma is missing": right / gamma,
        "gamma and the 1/2 are missing": squared.mean(),
        "the length is not squared": gamma / 2 * squared.sqrt().mean(),
        "that is the slope of the *mean* logit, B times too small at each picture; take the sum": right / 16,
        "that is the slope of the mean logit, added up over the batch; take the sum of the logits": right / 4,
        "the slopes are added up before they are squared": gamma / 2 * slope.flatten(1).sum(1).square().mean(),
        "you took the mean slope of the batch first; every picture has a length of its own": (
            gamma / 2 * slope.mean(0).square().sum()
        ),
        "that is the penalty of WGAN-GP, the distance from length 1; here every slope is punished": (
            gamma / 2 * (squared.sqrt() - 1).square().mean()
        ),
        "that is WGAN-GP's penalty, the distance from length 1; here every slope is punished": (
            gamma * (squared.sqrt() - 1).square().mean()
        ),
        "the logits are squared; their slopes should be": gamma / 2 * logits.square().mean(),
        "that is the slope by D's weights; take it by the pictures": gamma / 2 * by_weight.square().sum(),
        "that is the slope by D's weights, as a mean over the batch; take it by the pictures": (
            gamma / 2 * by_weight.square().sum() / 4
        ),
        "the absolute values are added up; the squares should be": gamma / 2 * slope.abs().flatten(1).sum(1).mean(),
        "the sign is wrong; D has to pay": -right,
    }
    answer.expect(found, right, "the penalty of 4 pictures, gamma 3", mistakes, 1e-4)
    answer.verify("the value is right")
    if weight.grad is not None:
        answer.fail(
            "it leaves slopes in D's weights, which the next step would use; take torch.autograd.grad, not backward"
        )
    if not found.requires_grad:
        answer.fail("no slope flows from the penalty to D's weights, so D could not learn from it; see `create_graph`")
    (by_penalty,) = torch.autograd.grad(found, weight)

    def original(weight: Tensor) -> Tensor:
        return gamma / 2 * (weight * (images + 1)).square().flatten(1).sum(1).mean()

    answer.expect(
        by_penalty, *gradient_of(original, (weight.detach(),)), "the slope of the penalty by D's weights", None, 1e-4
    )
    answer.verify("slopes reach D's weights, and their `.grad` stays as it was")
    line = torch.tensor([3.0, 4.0], requires_grad=True)
    for count, strength in ((1, 1.0), (100, 10.0)):
        what = f"the penalty of D(x) = 3 x1 + 4 x2 for {count} points and gamma {strength:g}"
        answer.expect(answer(lambda x: x @ line, random(seed + 2, count, 2), strength), 12.5 * strength, what)
    answer.verify("D(x) = 3 x1 + 4 x2 pays 12.5, for points as for pictures")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLPDiscriminator(2, 8, 1)
    points = random(seed + 3, 7, 2).requires_grad_()
    (wanted,) = torch.autograd.grad(network(points).sum(), points)
    found = answer(network, points.detach(), 2.0)
    answer.expect(found, wanted.square().sum(1).mean(), "the penalty of a small network", None, 1e-4)
    if any(parameter.grad is not None for parameter in network.parameters()):
        answer.fail(
            "it leaves slopes in D's weights, which the next step would use; take torch.autograd.grad, not backward"
        )
    answer.verify("a small network agrees")
    answer.passed()
