"""The page of `make app`: the prompt studio of lessons 00 and 14, without a notebook around it."""

from course_lib.lesson import setup
from course_lib.widgets import prompt_studio

setup()
prompt_studio()
