"""What a model writes becomes masks: several [SEG] their union, none an empty mask; each network looks once."""

import numpy as np
import pytest
import torch
from tiny_lisa import load, write_lisa
from tiny_parts import noise

from mllm.lisa.answer import Answered, Asking
from mllm.lisa.segment import Grounder, Reply
from mllm.lisa.segmenter import enlarge
from mllm.llava.tiling import Tiling
from rice.errors import RiceError

SIZE = (50, 70)


@pytest.fixture(scope="module", params=[("one", "sam2"), ("2x2+1", "sam"), ("anyres9", "sam")], ids=str)
def grounder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grounder:
    tiling: Tiling = request.param[0]
    folder = tmp_path_factory.mktemp("lisa") / "model"
    return Grounder(load(write_lisa(folder, tiling, request.param[1])), most=4, together=2)


def states(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


def replies(grounder: Grounder, monkeypatch: pytest.MonkeyPatch, said: list[torch.Tensor]) -> list[Reply]:
    """Where the language model says just that."""
    answers = [Answered((65,), one, states(1, seed=9)) for one in said]
    monkeypatch.setattr(grounder.answerer, "answer", lambda asking, picture: answers)
    return list(grounder.reply(grounder.look(noise(*SIZE)), ["what?"] * len(said)))


def mask_of(grounder: Grounder, state_D: torch.Tensor) -> torch.Tensor:
    """Of one hidden state, by the parts one after the other."""
    segmenter, frame = grounder.lisa.segmenter, grounder.lisa.segmenter.frame(noise(*SIZE))
    with torch.no_grad():
        prompt_1C = grounder.lisa.projection(state_D[None])
        low_1hw = segmenter.decode(segmenter.encode(frame.pixels[None]), torch.tensor([0]), prompt_1C)
        return enlarge(low_1hw, frame.seen, SIZE, segmenter.edge)[0] > 0


def test_two_seg_are_the_union_and_none_is_an_empty_mask(grounder: Grounder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = states(2)
    single = [mask_of(grounder, first), mask_of(grounder, second)]
    assert (single[0] != single[1]).any(), "the sample must have two different masks"
    two, none, one = replies(grounder, monkeypatch, [torch.stack([first, second]), states(0), first[None]])
    assert torch.equal(two.mask_HW, single[0] | single[1])
    assert (two.segs, none.segs, one.segs) == (2, 0, 1)
    assert none.mask_HW.shape == SIZE
    assert not none.mask_HW.any()
    assert torch.equal(one.mask_HW, single[0])
    for reply in (two, none, one):
        assert torch.equal(reply.given_HW, mask_of(grounder, states(1, seed=9)[0]))


def test_the_segmenter_looks_once_at_a_picture_however_many_expressions(grounder: Grounder) -> None:
    before = grounder.lisa.segmenter.encoded
    found = list(grounder.reply(grounder.look(noise(*SIZE)), [f"What is {word}?" for word in "abcde"]))
    assert len(found) == 5
    assert grounder.lisa.segmenter.encoded == before + 1


def test_replies_do_not_depend_on_what_else_is_asked(grounder: Grounder) -> None:
    sight = grounder.look(noise(*SIZE))
    questions = ["What is it?", "What is the red box left of the disc?", "Where?"]
    together = list(grounder.reply(sight, questions))
    for question, reply in zip(questions, together, strict=True):
        (alone,) = grounder.reply(sight, [question])
        assert (alone.text, alone.segs) == (reply.text, reply.segs)
        assert float((alone.given_HW != reply.given_HW).double().mean()) < 1e-3
    assert len({np.packbits(reply.given_HW.numpy()).tobytes() for reply in together}) == 3, "questions must matter"


def test_where_memory_ends_one_line_says_what_to_lower(grounder: Grounder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(asking: Asking, picture: dict[str, torch.Tensor]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(grounder.answerer, "answer", full)
    with pytest.raises(RiceError, match=r"out of memory.*2 questions.*lower --batch-size"):
        list(grounder.reply(grounder.look(noise(*SIZE)), ["What?"] * 5))
