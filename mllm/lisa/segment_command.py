"""The verb `rice lisa segment`."""

from pathlib import Path
from typing import Annotated

import tyro

from mllm.lisa.asked import MOST, Asked
from rice.errors import RiceError


def segment(
    image: Annotated[Path, tyro.conf.Positional],
    expressions: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    model: Path,
    out: Path,
    sentence: bool = False,
    max_new_tokens: int = MOST,
    dtype: str = "auto",
    device: str = "auto",
) -> None:
    """Segment what words say on a picture: OUT/overlay.png, and OUT/mask-1.png, mask-2.png, ... in their order.

    A mask has the picture's own size: 255 inside, 0 outside; on the overlay a later one hides an earlier. Of several
    [SEG] in one answer it is the union; an answer without one is an empty mask, and the line that is printed says so.

    Example: rice lisa segment street.jpg "the striped disc left of the red box" --model out/rice/model --out out/seen

    Args:
        image: the picture.
        expressions: what to segment: one text for each mask.
        model: OUT/model of rice lisa train.
        out: folder to write.
        sentence: the texts are whole questions, such as "What would you open this bottle with?".
        max_new_tokens: longest answer.
        dtype: auto (bfloat16 on a GPU, float32 on the CPU), float32, bfloat16 or float16.
        device: auto, cpu or cuda.
    """
    asked = Asked(most=max_new_tokens)
    texts = [text.strip() for text in expressions]
    if not texts or not all(texts):
        found = "an empty one" if texts else "none"
        raise RiceError(f'expected a text that says what to segment after the picture, got {found}; e.g. "the red box"')
    import numpy as np
    from PIL import Image, ImageOps

    from mllm.lisa.model import Trained
    from mllm.lisa.overlay import draw_overlay
    from mllm.lisa.phrases import ask
    from mllm.lisa.pictures import Target
    from mllm.lisa.segment import Grounder
    from rice.data.decode import to_rgb
    from rice.data.picture import open_picture
    from rice.files import atomic_write, make_folder

    picture = to_rgb(ImageOps.exif_transpose(open_picture(image)))
    grounder = Grounder(Trained.load(model, device=device, dtype=dtype), most=asked.most)
    questions = [ask(Target("", (text,), sentence=sentence)) for text in texts]
    replies = list(grounder.reply(grounder.look(picture), questions))
    masks = [reply.mask_HW.cpu().numpy() for reply in replies]
    make_folder(out)
    for k, (text, reply, mask_HW) in enumerate(zip(texts, replies, masks, strict=True), start=1):
        path = out / f"mask-{k}.png"
        with atomic_write(path, "wb") as file:
            Image.fromarray(mask_HW.astype("uint8") * 255).save(file, "PNG")
        print(line(text, reply.text, reply.segs, float(mask_HW.mean()), path))  # noqa: T201
    for path in _left_over(out, len(texts)):
        path.unlink()
    with atomic_write(out / "overlay.png", "wb") as file:
        draw_overlay(picture, np.stack(masks), texts).save(file, "PNG")
    print(out / "overlay.png")  # noqa: T201


def _left_over(out: Path, count: int) -> list[Path]:
    """Masks of an earlier run, which had more expressions: they would stand beside an overlay that is not theirs."""
    numbers = {path: path.stem.removeprefix("mask-") for path in out.glob("mask-*.png")}
    return [path for path, number in numbers.items() if number.isdecimal() and int(number) > count]


def line(text: str, answer: str, segs: int, share: float, path: Path) -> str:
    """What came of one expression. segs: [SEG] in the answer; share: of the picture, 0 to 1."""
    if not segs:
        found = "no [SEG], so an empty mask"
    elif not share:
        found = "an empty mask"
    else:
        found = f"{share:.1%} of the picture" + (f", the union of {segs} masks" if segs > 1 else "")
    return f"{text!r}: {answer!r}: {found}: {path}"
