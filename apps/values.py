"""`--values BLACK WHITE`: what a model was trained to take black and white for, where no run says."""

from typing import Annotated

from typer import Option

HELP = "What they become: a number each, or one for each channel, as 1,2,3."
Given = Annotated[
    tuple[str, str] | None,
    Option(
        "--values",
        metavar="BLACK WHITE",
        help=HELP,
        show_default="the run's, or the recipe's; else 0 1",
    ),
]


def numbers(given: tuple[str, str] | None):
    """Read what the option was given.

    Args:
        given: Two texts, such as "-1" and "1" or "-2.12,-2.04,-1.80" and "2.25,2.43,2.64"; None if it was not.

    Returns:
        `tfzoo.data.black_and_white.Values`, or None.

    Raises:
        ValueError: They are no numbers.
    """
    if given is None:
        return None
    try:
        black, white = (tuple(map(float, text.split(","))) for text in given)
    except ValueError as error:
        raise ValueError(
            "--values takes two numbers, or two rows of numbers with commas between them and no spaces, one for each "
            f"channel: --values -2.12,-2.04,-1.80 2.25,2.43,2.64. Received: {' '.join(given)}"
        ) from error
    return tuple(value[0] if len(value) == 1 else value for value in (black, white))
