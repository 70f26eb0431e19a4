"""What all checks share: an answer is called safely, its result is compared, and the verdict is put in words."""

import contextlib
import copy
import ctypes
import inspect
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

SECONDS = 5.0  # that one call of an answer may take
NUMBERS = (int, float, complex, np.generic, np.ndarray, Tensor)


class CheckFailed(AssertionError):
    """What is wrong with an answer, in words; a notebook shows these words and no stack trace."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self}"]


class TimeIsUp(Exception):
    """Thrown into a thread whose answer does not come to an end."""


class Answer:
    """A learner's function, made safe to call and easy to compare.

    It runs in a thread of its own with copies of the inputs, a time limit, and its prints held back. Whatever it does
    (raise, loop for ever, change its inputs, return nothing) becomes a `CheckFailed` with a sentence.

    Args:
        name: of the function, as the exercise has it.
        function: the learner's.
        seconds: that one call may take.
    Raises:
        CheckFailed: it is not a function.
    """

    def __init__(self, name: str, function: Callable, seconds: float = SECONDS):
        self.name, self.function, self.seconds = name, function, seconds
        self.verified: list[str] = []
        if not callable(function):
            raise CheckFailed(f"{name}: got {describe(function)}; give the function itself, without calling it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The answer's result for these inputs.

        Raises:
            CheckFailed: it raised, took too long, or changed an input.
        """
        given = copied((args, kwargs))
        result = self.run(given)
        if not same(given, (args, kwargs)):
            self.fail("it changes its inputs, which the caller still needs; work on new tensors (no `+=`, no `x[i] =`)")
        return result

    def run(self, given: tuple[tuple, dict]) -> Any:
        """Call the function in a thread, and give it up when the time is up."""
        box: dict[str, Any] = {}

        def call() -> None:
            try:
                box["result"] = self.function(*given[0], **given[1])
            except BaseException as error:  # also SystemExit: an answer must not end the lesson
                box["error"] = error

        thread = threading.Thread(target=call, daemon=True)
        with contextlib.redirect_stdout(io.StringIO()):  # ends here even if the thread does not
            thread.start()
            thread.join(self.seconds)
        if thread.is_alive():
            interrupt(thread)
            self.fail(f"it did not come back within {self.seconds:g} seconds; is there a loop that never ends?")
        if "error" in box:
            self.fail(self.explain(box["error"]))
        return box["result"]

    def explain(self, error: BaseException) -> str:
        """What an exception of the answer means."""
        if isinstance(error, NotImplementedError) and not error.args:  # torch raises it too, with a text
            return "it is not written yet; replace the line `raise NotImplementedError()`"
        if isinstance(error, TypeError) and "argument" in str(error):
            return f"its arguments are not those of the exercise ({error}); keep the first line as it was"
        lines = [step for step in trace(error) if step[0] == getattr(self.function, "__code__", None)]
        where = f" in its line {lines[-1][1]}" if lines else ""
        return f"it stops{where} with {type(error).__name__}: {error}"

    def fail(self, why: str) -> None:
        """End the check with a sentence."""
        raise CheckFailed(f"{self.name}: {why}")

    def tensor(self, result: Any, what: str = "the result") -> Tensor:
        """The result as a tensor; NumPy arrays and plain numbers are taken too.

        Raises:
            CheckFailed: it is nothing of that kind.
        """
        if result is None:
            self.fail(f"{what} is None; does every way through the function end in `return`?")
        if not isinstance(result, NUMBERS) or isinstance(result, complex):
            self.fail(f"{what} is {describe(result)}; return a tensor")
        return result if isinstance(result, Tensor) else torch.as_tensor(result)

    def expect_shape(self, result: Any, shape: tuple[int, ...], hint: str, what: str = "the result") -> Tensor:
        """Result as a tensor of this shape.

        Args:
            hint: what the shape means, or what to look for.
        Raises:
            CheckFailed: it has another one.
        """
        found = self.tensor(result, what)
        if tuple(found.shape) != shape:
            self.fail(f"{what} has the shape {tuple(found.shape)} and should have {shape}: {hint}")
        return found

    def expect(
        self,
        result: Any,
        right: Any,
        what: str,
        mistakes: Mapping[str, Any] | None = None,
        tolerance: float = 1e-5,
        hint: str = "",
    ) -> None:
        """Compare a result with the right one; the shapes must agree too.

        Args:
            result, right: numbers, arrays or tensors.
            what: is compared, such as "the value for four pixels".
            mistakes: misconception, as a clause that follows a colon -> the result it leads to.
            tolerance: relative, and absolute for small numbers.
            hint: what to look at when no known mistake fits.
        Raises:
            CheckFailed: they differ; names the misconception if its result was found.
        """
        right = torch.as_tensor(right)
        found = self.expect_shape(result, tuple(right.shape), hint or f"it is {what}", what)
        if close(found, right, tolerance):
            return
        for mistake, wrong in (mistakes or {}).items():
            if close(found, torch.as_tensor(wrong), tolerance):
                self.fail(f"{what} is {short(found)}: {mistake}")
        if not torch.isfinite(found.detach().double()).all():
            self.fail(f"{what} is not finite ({short(found)}). {hint}".strip())
        self.fail(f"{what} is {short(found)} and should be something else. {hint}".strip())

    def expect_gradient(
        self,
        inputs: tuple[Tensor, ...],
        right: Callable[..., Tensor],
        what: str,
        tolerance: float = 1e-5,
        hint: str = "",
        mistakes: Mapping[str, Callable[..., Tensor]] | None = None,
    ) -> None:
        """Compare the gradients with respect to all inputs with those of another function.

        Args:
            inputs: tensors; the gradient is that of the result's sum.
            right: the original, called with the same inputs.
            what, tolerance, hint: as for `expect`.
            mistakes: misconception -> the function it leads to.
        Raises:
            CheckFailed: no gradient flows, or another one.
        """
        leaves = [x.clone().requires_grad_() for x in inputs]
        result = self.tensor(self.run((tuple(leaves), {})))
        if not result.requires_grad:
            self.fail(
                f"no gradient flows through it, so nothing could be trained with it; stay with torch's operations "
                f"(no `.item()`, `.detach()`, `float()` or NumPy on the way). Checked: {what}"
            )
        found = gradients(result, leaves)
        expected = gradient_of(right, inputs)
        if all(close(a, b, tolerance) for a, b in zip(found, expected, strict=True)):
            return
        for mistake, wrong in (mistakes or {}).items():
            if all(close(a, b, tolerance) for a, b in zip(found, gradient_of(wrong, inputs), strict=True)):
                self.fail(f"{what}: {mistake}")
        self.fail(f"{what} is {short(found[0])} and should be something else. {hint}".strip())

    def expect_error(self, *args: Any, what: str) -> None:
        """The answer must refuse these inputs with a ValueError (a sentence, not a number).

        Args:
            what: must be refused, such as "unequal shapes".
        Raises:
            CheckFailed: it takes them.
        """
        try:
            self.run((copied(args), {}))
        except CheckFailed as failed:
            if "ValueError" in str(failed) or "CourseError" in str(failed):
                return
            raise
        self.fail(f"it takes {what}, and should refuse them with a ValueError")

    def verify(self, what: str) -> None:
        """Note what was verified; the pass tells it."""
        self.verified.append(what)

    def passed(self) -> None:
        """Say that all is right, and what was looked at."""
        print(f"✓ {self.name}: {'; '.join(self.verified)}")


def interrupt(thread: threading.Thread) -> None:
    """Throw an exception into a thread that runs Python; one that hangs in C is left behind."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeIsUp))
    thread.join(1.0)


def trace(error: BaseException) -> list[tuple[Any, int]]:
    """(code, line within the function) of every step that led to an exception."""
    steps, now = [], error.__traceback__
    while now is not None:
        code = now.tb_frame.f_code
        steps.append((code, now.tb_lineno - code.co_firstlineno + 1))
        now = now.tb_next
    return steps


def copied(value: Any) -> Any:
    """The same inputs again; tensors that are part of a graph lose it."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad and value.is_floating_point())
    if isinstance(value, tuple | list):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return value if callable(value) else copy.deepcopy(value)


def same(one: Any, other: Any) -> bool:
    """Whether two structures of inputs hold the same numbers."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return True if callable(one) or isinstance(one, torch.Generator) else one == other


def close(found: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether both hold the same numbers, of whatever type; infinities must agree, and nan is never right."""
    found, right = (x.detach().cpu().double() for x in (found, right))
    return found.shape == right.shape and torch.allclose(found, right, rtol=tolerance, atol=tolerance)


def gradients(result: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of the result's sum; zeros where an input plays no part."""
    found = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def gradient_of(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of a function at these inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    return gradients(function(*leaves), leaves)


def describe(value: Any) -> str:
    """What a thing is, in words."""
    if value is None:
        return "None"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiou" else "a"
    return f"the class {value.__name__}" if inspect.isclass(value) else f"{article} {kind}"


def short(x: Tensor) -> str:
    """A few numbers of a tensor."""
    numbers = x.detach().flatten().tolist()
    told = ", ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers[:4])
    return told if len(numbers) == 1 else f"[{told}{', ...' if len(numbers) > 4 else ''}]"


def random(seed: int, *shape: int) -> Tensor:
    """Numbers from N(0, 1) that are the same on every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def several(answer: Answer, result: Any, names: Sequence[str]) -> list[Tensor]:
    """The parts of a result that has several.

    Args:
        names: what the parts are, in their order.
    Raises:
        CheckFailed: it is no tuple of that many.
    """
    wanted = f"return {len(names)} values: {', '.join(names)}"
    if result is None:
        answer.fail(f"the result is None; does every way through the function end in `return`? {wanted}")
    if not isinstance(result, tuple | list):
        answer.fail(f"the result is {describe(result)}; {wanted}")
    if len(result) != len(names):
        answer.fail(f"the result has {len(result)} parts; {wanted}")
    return [answer.tensor(part, name).detach() for part, name in zip(result, names, strict=True)]


def expect_picture(
    answer: Answer, result: object, right: Tensor, what: str, mistakes: Mapping[str, Tensor], size: str
) -> None:
    """As `answer.expect`; a mistake that leads to another shape is named as well.

    Args:
        size: the formula of the output's size, told where no mistake fits the shape.
    """
    found = answer.tensor(result)
    if found.shape != right.shape:
        for mistake, wrong in mistakes.items():
            if found.shape == wrong.shape:
                answer.fail(f"{what} has the shape {tuple(found.shape)}, not {tuple(right.shape)}: {mistake}")
    hint = f"{size} (pictures, channels, rows, columns)"
    answer.expect_shape(found, tuple(right.shape), hint, what)
    answer.expect(found, right, what, mistakes)
