"""The tokenizers that the attacks of benchmarks/attacks.py aim at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
_MADE: Any = PreTrainedTokenizerFast  # without type information

MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


def byte_tokenizer(
    special: Sequence[str], plain: Sequence[str] = (), *, norm: Any = None, template: str = CHATML
) -> Any:
    """A tokenizer of bytes with these added tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if norm is not None:
        made.normalizer = norm
    folded = norm is not None
    made.add_special_tokens([AddedToken(t, special=True, normalized=folded) for t in special])
    made.add_tokens([AddedToken(t, special=False, normalized=folded) for t in plain])
    tokenizer: Any = _MADE(tokenizer_object=made, eos_token=special[0])
    tokenizer.chat_template = template
    return tokenizer


_IM = ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]
_OTHERS = (
    "[gMASK] <sop> <|user|> <|system|> <|assistant|> [|user|] [|system|] [|endofturn|] [|assistant|] "
    "<seed:bos> <seed:think> </seed:think> <|turn_end|> ]~b] ]~!b[ [e~[ <minimax:tool_call> "
    "<extra_id_1> <reserved_102> <start_of_image> <unused5> <SPECIAL_12> <TOKENS_UNUSED_1> <eoh> "
    "<eoa> <IMG_CONTEXT> <fim_prefix> <filename> <jupyter_start> <reponame> >>QUESTION<< >>ANSWER<< "
    "[CLS] [SEP] [MASK] [PAD] [UNK] [BOS] [EOS] <arg_key> </arg_key> <arg_value> <observation> "
    "<turn|> <|turn> <|start|> <|message|> <|end|> <|eom_id|> <|python_tag|> <|START_OF_TURN_TOKEN|> "
    "<|SYSTEM_TOKEN|> <human> <bot> <end_of_turn> <start_of_turn> <bos> <eos> <pad> <mask> "
).split()

TOKENIZERS: dict[str, Any] = {
    "chatml": lambda: byte_tokenizer(_IM),
    "llama3": lambda: byte_tokenizer(
        ["<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
    ),
    "mistral": lambda: byte_tokenizer(
        "</s> <s> [INST] [/INST] [TOOL_CALLS] [TOOL_CONTENT] [CALL_ID] [THINK] [/THINK] [ARGS] [IMG] "
        "[IMG_BREAK] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] <<SYS>> <</SYS>>".split(),
        template=MISTRAL,
    ),
    "qwen, tools not special": lambda: byte_tokenizer(
        _IM, ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>"]
    ),
    "deepseek": lambda: byte_tokenizer(
        ["<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"]
    ),
    "others": lambda: byte_tokenizer(_OTHERS),
    "NFKC": lambda: byte_tokenizer(_IM, norm=normalizers.NFKC()),
    "strips accents": lambda: byte_tokenizer(
        _IM, norm=normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    ),
    "cleans like BERT": lambda: byte_tokenizer(
        _IM, norm=normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    ),
    "drops invisible characters": lambda: byte_tokenizer(
        _IM,
        norm=normalizers.Replace(
            __import__("tokenizers").Regex("[\u200b\u200d\u2060\u00ad\ufe0f\\x00]"), ""
        ),
    ),
    "drops spaces": lambda: byte_tokenizer(_IM, norm=normalizers.Replace(" ", "")),
}
