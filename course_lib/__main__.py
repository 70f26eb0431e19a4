"""`python -m course_lib` is the command `course`, also where the folder of installed scripts is not on PATH."""

from course_lib.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
