"""TokenizerPlayground: its pieces are the tokenizer's, its weights those that GPT-2 of transformers gives."""

import re

import pytest
import torch
from explorers import controls

from course_lib.text_encoder import load_text_encoder, to_gpt2_state_dict
from course_lib.torchvision_ops import ensure_torchvision_ops
from course_lib.widgets import tokenizer_playground
from course_lib.widgets.tokenizer_playground import attention_weights, merge_history

MODEL = "gpt-captions"


@pytest.mark.parametrize("text", ["a vermilion ring", "红色圆形，很小", "x", "aaaa 八"])
def test_the_merges_end_where_the_tokenizer_does(text):
    tokenizer = load_text_encoder(MODEL)[1]
    history, plain = merge_history(tokenizer, text), text.replace("，", ",")
    assert [i for word in history[-1][0] for i in word] == tokenizer.encode(plain)
    assert history[0][1] is None and bytes(i for word in history[0][0] for i in word).decode() == plain
    lengths = [sum(map(len, words)) for words, _ in history]
    assert lengths == sorted(set(lengths), reverse=True)  # every merge shortens it


def test_the_weights_are_those_of_gpt2_in_transformers():
    ensure_torchvision_ops()
    from transformers import GPT2Config, GPT2Model

    encoder, tokenizer = load_text_encoder(MODEL)
    ids, mask = tokenizer.encode_batch(["a large red circle", "一个很小的红色星形"], 64)
    c = encoder.config
    sizes = {"vocab_size": c.vocab_size, "n_positions": c.context_length, "n_embd": c.width}
    config = GPT2Config(**sizes, n_head=c.heads, n_layer=c.layers, attn_implementation="eager")
    config.bos_token_id, config.eos_token_id = tokenizer.start_id, tokenizer.end_id
    gpt2 = GPT2Model(config).eval()
    gpt2.load_state_dict(to_gpt2_state_dict(encoder))
    theirs = torch.stack(gpt2(ids, attention_mask=mask.long(), output_attentions=True).attentions)
    ours = attention_weights(encoder, ids, mask)
    rows = mask[None, :, None, :, None].expand_as(ours)  # what padding looks at interests nobody
    torch.testing.assert_close(ours[rows], theirs[rows], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.sum(-1), torch.ones(ours.shape[:-1]))


def test_another_sentence_has_its_own_merges_and_whoever_saw_all_sees_all():
    explorer = tokenizer_playground("a ring", merges=99)
    parts = controls(explorer)
    assert parts["merges"].value == parts["merges"].max > 1
    for text in ("a large red circle", "红"):
        parts["sentence"].value = text
        last = len(merge_history(load_text_encoder(MODEL)[1], text)) - 1
        assert parts["merges"].value == parts["merges"].max == last
        assert f"Merge {last} of {last}" in explorer.words.value
    parts["merges"].value = 0
    assert "3 pieces: e7 · ba · a2" in explorer.words.value
    explorer.close()


def test_a_sentence_that_is_too_long_is_told_and_typing_is_no_html():
    explorer = tokenizer_playground()
    typed = controls(explorer)["sentence"]
    typed.value = "vermilion " * 10
    assert "the limit is 62" in explorer.alarm.value
    typed.value = "x" * 121
    assert "sentence has 121 characters; type 1 to 120" in explorer.alarm.value
    typed.value = "<b>"
    assert explorer.alarm.value == "" and not re.search("<b>", explorer.words.value)
    explorer.close()
