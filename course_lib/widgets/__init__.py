"""Explorers: what a lesson lets its reader move. One file a widget, each a function that returns it.

>>> from course_lib.widgets import loss_explorer
>>> loss_explorer().title
'Losses and their gradients'
"""

from course_lib.widgets.conditioning_lab import conditioning_lab
from course_lib.widgets.convolution_stepper import convolution_stepper
from course_lib.widgets.dataset_browser import dataset_browser
from course_lib.widgets.denoising_film import denoising_film
from course_lib.widgets.gan_arena import gan_arena
from course_lib.widgets.latent_map import latent_map
from course_lib.widgets.latent_walk import latent_walk
from course_lib.widgets.loss_explorer import loss_explorer
from course_lib.widgets.optimizer_race import optimizer_race
from course_lib.widgets.prompt_studio import prompt_studio
from course_lib.widgets.rating_booth import rating_booth
from course_lib.widgets.similarity_matrix import similarity_matrix
from course_lib.widgets.tokenizer_playground import tokenizer_playground
from course_lib.widgets.training_dashboard import training_dashboard

__all__ = [
    "conditioning_lab",
    "convolution_stepper",
    "dataset_browser",
    "denoising_film",
    "gan_arena",
    "latent_map",
    "latent_walk",
    "loss_explorer",
    "optimizer_race",
    "prompt_studio",
    "rating_booth",
    "similarity_matrix",
    "tokenizer_playground",
    "training_dashboard",
]
