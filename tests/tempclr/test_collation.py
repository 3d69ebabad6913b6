from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tempclr.data.collation import ParagraphCollator, cut_clips
from tempclr.data.rows import Paragraph
from tempclr.data.tokenization import train_tokenizer
from tempclr.errors import InputError
from tempclr.models.tempclr.processing_tempclr import TempCLRProcessor


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["cut the bread", "butter the slice", "eat it all up"], vocab_size=80)


def paragraph(video_id="v", *, spans=((0.0, 2.0), (2.0, 5.0)), num_features=7, rate=1.0, dim=4, **changes):
    fields = {
        "video_id": video_id,
        "sentences": ["cut the bread", "eat it all up", "butter the slice"][: len(spans)],
        "starts": [start for start, _ in spans],
        "ends": [end for _, end in spans],
        "features": np.arange(num_features * dim, dtype=np.float32).reshape(num_features, dim),
        "features_per_second": rate,
    }
    return Paragraph(**{**fields, **changes})


def ranges(*args, max_num_features=32, clip_seconds=None, **options):
    clips = cut_clips(*args, max_num_features=max_num_features, clip_seconds=clip_seconds, **options)
    return [(clip.first, clip.last, clip.sentence_index) for clip in clips]


def test_one_clip_of_each_segment():
    assert ranges(paragraph()) == [(0, 2, 0), (2, 5, 1)]


def test_a_segment_is_cut_into_clips_of_so_many_seconds():
    assert ranges(paragraph(), clip_seconds=2) == [(0, 2, 0), (2, 4, 1), (4, 5, 1)]
    assert ranges(paragraph(rate=0.5, num_features=4), clip_seconds=1) == [(0, 1, 0), (1, 2, 1), (2, 3, 1)]


def test_long_clips_keep_their_first_features():
    assert ranges(paragraph(), max_num_features=2) == [(0, 2, 0), (2, 4, 1)]
    assert ranges(paragraph(), clip_seconds=100, max_num_features=2) == [(0, 2, 0), (2, 4, 1), (4, 5, 1)]


def test_background_fills_the_gaps_in_order_of_time():
    gaps = paragraph(spans=((1.0, 2.0), (4.0, 6.0)), num_features=9)
    assert ranges(gaps, clip_seconds=2, keep_background=True) == [
        (0, 1, -1),
        (1, 2, 0),
        (2, 4, -1),
        (4, 6, 1),
        (6, 8, -1),
        (8, 9, -1),
    ]


def test_overlapping_segments_leave_no_background_between_them():
    inside = paragraph(spans=((0.0, 6.0), (1.0, 2.0)), num_features=7)
    assert ranges(inside, clip_seconds=6, keep_background=True) == [(0, 6, 0), (1, 2, 1), (6, 7, -1)]


def test_batch_shapes_dtypes_and_padding(tokenizer):
    videos = [paragraph("a"), paragraph("b", spans=((0.0, 1.0), (1.0, 2.0), (3.0, 7.0)))]
    batch = ParagraphCollator(tokenizer)(videos)
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "sentence_mask",
        "video_features",
        "video_mask",
        "clip_mask",
        "clip_sentence_index",
    }
    assert batch["input_ids"].shape[:2] == (2, 3) and batch["video_features"].shape == (2, 3, 4, 4)
    assert batch["sentence_mask"].tolist() == [[True, True, False], [True] * 3]
    assert batch["clip_mask"].tolist() == [[True, True, False], [True] * 3]
    assert batch["clip_sentence_index"].tolist() == [[0, 1, -1], [0, 1, 2]]
    assert {name: tensor.dtype for name, tensor in batch.items() if tensor.is_floating_point()} == {
        "video_features": torch.float32
    }
    assert torch.equal(batch["video_features"][0, 1, :3], torch.from_numpy(videos[0].features[2:5]))
    assert not batch["video_features"][~batch["video_mask"]].any()
    assert batch["video_mask"].sum(dim=2).tolist() == [[2, 3, 0], [1, 1, 4]]


def test_sentences_become_cls_words_sep_pad(tokenizer):
    batch = ParagraphCollator(tokenizer)([paragraph()])
    ids, mask = batch["input_ids"][0], batch["attention_mask"][0].bool()
    for row in range(2):
        words = ids[row][mask[row]].tolist()
        assert words[0] == tokenizer.cls_token_id and words[-1] == tokenizer.sep_token_id
        assert tokenizer.sep_token_id not in words[:-1]
        assert (ids[row][~mask[row]] == tokenizer.pad_token_id).all()
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "cut the bread"


def test_long_sentences_are_cut_with_their_special_tokens(tokenizer):
    batch = ParagraphCollator(tokenizer, max_text_tokens=4)([paragraph()])
    assert batch["input_ids"].shape[2] == 4
    assert (batch["input_ids"][0, :, -1] == tokenizer.sep_token_id).all()


def test_rows_of_a_dataset_are_read_and_checked(tokenizer):
    row = {
        "video_id": "a",
        "sentences": ["cut the bread"],
        "starts": [0.0],
        "ends": [2.0],
        "features": [[0.0, 1.0], [2.0, 3.0]],
        "features_per_second": 1.0,
    }
    batch = ParagraphCollator(tokenizer)([row])
    assert batch["video_features"].tolist() == [[[[0.0, 1.0], [2.0, 3.0]]]]
    with pytest.raises(InputError, match=r"row 1.*ends"):
        ParagraphCollator(tokenizer)([row, {**row, "ends": []}])


def test_a_video_without_features_is_named(tokenizer):
    bare = paragraph("kitchen-3", features=None, features_per_second=None)
    with pytest.raises(InputError, match=r"'kitchen-3' has no features.*tempclr extract"):
        ParagraphCollator(tokenizer)([bare])


def test_features_of_two_widths_are_named(tokenizer):
    with pytest.raises(InputError, match=r"one width, got 4 \('a'\), 5 \('b'\)"):
        ParagraphCollator(tokenizer)([paragraph("a"), paragraph("b", dim=5)])


def test_a_processor_is_taken_by_its_tokenizer_and_ids_come_when_asked(tokenizer):
    """Note [One way to make a batch]."""
    processor = TempCLRProcessor(tokenizer, max_text_tokens=4, max_num_features=1)
    collator = ParagraphCollator(processor, with_video_ids=True)
    batch = collator([paragraph("a"), paragraph("b")])
    assert collator.tokenizer is tokenizer
    assert batch["video_id"] == ["a", "b"]
    assert batch["input_ids"].shape[2] == 4 and batch["video_features"].shape[2] == 1
    wider = ParagraphCollator(processor, max_text_tokens=5, max_num_features=2)([paragraph()])
    assert wider["input_ids"].shape[2] == 5 and wider["video_features"].shape[2] == 2


def test_impossible_settings_are_refused(tokenizer):
    with pytest.raises(ValueError, match="clip_seconds must be above 0, got 0"):
        ParagraphCollator(tokenizer, clip_seconds=0)
    with pytest.raises(ValueError, match="keep_background needs clip_seconds"):
        ParagraphCollator(tokenizer, keep_background=True)


def test_it_works_in_loader_workers(tokenizer):
    collator = ParagraphCollator(tokenizer, clip_seconds=1)
    pickle.loads(pickle.dumps(collator))
    videos = [paragraph(str(n)) for n in range(4)]
    here = list(DataLoader(videos, batch_size=2, collate_fn=collator))
    there = list(DataLoader(videos, batch_size=2, collate_fn=collator, num_workers=2))
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
