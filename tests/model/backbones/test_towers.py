"""The towers against open_clip_torch, and where a caption is pooled."""

import open_clip
import pytest
import torch
from torch import Tensor

from model.backbones.clip import CLIP, RANDOM, VIT_B_16, clip_names
from model.backbones.weights import sizes_of

START, END = 49406, 49407


def random_captions(rows: int) -> tuple[Tensor, Tensor]:
    """Ids (rows, 77) of different lengths, and these."""
    ids, lengths = torch.zeros(rows, 77, dtype=torch.long), 6 + 9 * torch.arange(rows)
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.randint(1, START - 1, (length,))
        ids[row, 0], ids[row, length - 1] = START, END
    return ids, lengths


@torch.no_grad()
def test_towers_match_open_clip():
    theirs = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval()
    theirs.visual.output_tokens = True
    state = clip_names(theirs.state_dict())
    sizes = sizes_of(state, "open_clip")
    assert sizes == VIT_B_16
    ours = CLIP(sizes).eval()
    ours.load_state_dict({key: value for key, value in state.items() if key != "attn_mask"})
    images, (ids, lengths) = torch.randn(2, 3, 224, 224), random_captions(3)
    pooled, tokens = theirs.visual(images)
    encoded = ours.encode_image(images)
    torch.testing.assert_close(encoded.pooled, pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoded.pooled, encoded.tokens[:, 0])
    # open_clip projects the pooled token only; its other tokens come out of the last block as they are
    patches = (theirs.visual.ln_post(tokens) if not _normed(tokens) else tokens) @ theirs.visual.proj
    torch.testing.assert_close(encoded.tokens[:, 1:], patches, atol=1e-4, rtol=1e-4)
    text = ours.encode_text(ids, lengths)
    torch.testing.assert_close(text.pooled, theirs.encode_text(ids), atol=1e-4, rtol=1e-4)
    hidden = theirs.token_embedding(ids) + theirs.positional_embedding
    hidden = theirs.ln_final(theirs.transformer(hidden, attn_mask=theirs.attn_mask)) @ theirs.text_projection
    torch.testing.assert_close(text.tokens, hidden, atol=1e-4, rtol=1e-4)


def _normed(tokens: Tensor) -> bool:
    return torch.allclose(tokens.mean(-1), torch.zeros(()), atol=1e-3)


def test_vit_b_16_has_the_published_number_of_parameters():
    with torch.device("meta"):
        clip = CLIP(VIT_B_16)
    assert sum(p.numel() for p in clip.parameters()) == 149_620_737 - 1  # OpenAI's, less the logit scale


@torch.no_grad()
def test_cutting_the_padding_changes_no_feature():
    text = CLIP(RANDOM["tiny"]).eval().text
    ids, lengths = random_captions(3)
    torch.testing.assert_close(text(ids[:, :24], lengths).pooled, text(ids, lengths).pooled, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("zeros", [[1], [4, 5], [2, 9]])
def test_a_caption_with_id_0_inside_is_pooled_at_its_end_token(zeros: list[int]):
    text = CLIP(RANDOM["tiny"]).eval().text
    ids, lengths = random_captions(4)
    for row in range(4):
        ids[row, [place for place in zeros if place < lengths[row] - 1]] = 0
    encoded = text(ids, lengths)
    for row in range(4):
        end = ids[row].tolist().index(END)
        assert torch.equal(encoded.pooled[row], encoded.tokens[row, end])


@torch.no_grad()
def test_truncation_to_make_room_for_prompts_pools_the_last_token():
    text = CLIP(RANDOM["tiny"]).eval().text
    ids, lengths = random_captions(2)
    ids[0], lengths[0] = torch.randint(1, START - 1, (77,)), 77
    encoded = text(ids, lengths, [torch.randn(4, 64)])
    assert encoded.tokens.shape[1] == 73
    assert torch.equal(encoded.pooled[0], encoded.tokens[0, 72])
    assert torch.equal(encoded.pooled[1], encoded.tokens[1, lengths[1] - 1])
