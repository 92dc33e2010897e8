"""Which layout the outputs of a detector have: told from their shapes where only one reading is possible, else said by
the user, never guessed. `src/vision/layouts.ts` decides the same; test/fixtures/detections/layouts.json holds both to
it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from whetstone_trainer.errors import TrainerError

# docs/preprocessing.md, "Outputs". All in pixels of the input, scores of 0 to 1.
Layout = Literal["BOXES_SCORES", "CENTRES_FIRST", "OBJECTNESS", "SUPPRESSED"]
# A dimension that is no number is open.
Shape = Sequence[int | str | None]


def choose_layout(shapes: Sequence[Shape], class_count: int, task: str | None, said: Layout | None) -> Layout:
    """The layout of outputs of these shapes. Raises MODEL_INVALID where they contradict the given layout, or leave
    more than one reading.

    Args:
        task: `whetstone.task` of the file's metadata, None in a foreign file.
        said: what the user says; only checked against the shapes.
    """
    listed = ", ".join(str(list(shape)) for shape in shapes)
    if said is not None:
        if not fits(shapes, said, class_count):
            raise TrainerError(
                "MODEL_INVALID", f"The outputs {listed} do not have the layout {said} of {class_count} classes."
            )
        return said
    if task == "DETECTION" and fits(shapes, "BOXES_SCORES", class_count):
        return "BOXES_SCORES"
    match _readings(shapes[0], class_count) if len(shapes) == 1 else []:
        case ["CENTRES_FIRST" | "OBJECTNESS" | "SUPPRESSED" as only]:
            return only
    raise TrainerError(
        "MODEL_INVALID",
        f"The outputs {listed} do not say how they hold boxes and the scores of {class_count} classes.",
        hint=f"Say the model's output layout, one of {', '.join(get_args(Layout))} (docs/preprocessing.md).",
    )


def fits(shapes: Sequence[Shape], layout: Layout, class_count: int) -> bool:
    """Whether shapes have a layout, as far as they are known."""
    match layout, shapes:
        case "BOXES_SCORES", [boxes, scores]:
            return _like(boxes, (None, None, 4)) and _like(scores, (None, None, class_count))
        case "CENTRES_FIRST", [rows]:
            # A square output would fit both ways round.
            return _like(rows, (None, 4 + class_count, None)) and rows[2] != 4 + class_count
        case "OBJECTNESS", [rows]:
            return _like(rows, (None, None, 5 + class_count))
        case "SUPPRESSED", [rows]:
            return _like(rows, (None, None, 6))
    return False


def _readings(shape: Shape, class_count: int) -> list[str]:
    """What a single output can be by its numbers. TRANSPOSED, rows of a place without objectness, is none of the
    layouts."""
    if len(shape) != 3:
        return []
    _, rows, columns = shape
    possible = {
        "CENTRES_FIRST": rows == 4 + class_count,
        "TRANSPOSED": columns == 4 + class_count,
        "OBJECTNESS": columns == 5 + class_count,
        "SUPPRESSED": columns == 6,
    }
    return [layout for layout, is_possible in possible.items() if is_possible]


def _like(shape: Shape, wanted: Sequence[int | None]) -> bool:
    """Whether every size that both know is the same."""
    return len(shape) == len(wanted) and all(
        w is None or not isinstance(s, int) or s == w for s, w in zip(shape, wanted, strict=True)
    )
