"""Train the triage model from scratch on synthetic tickets: `python -m model.make_model`, from the folder above this one.

A Llama of about 0.7 M parameters with a tokenizer of its own, in a few minutes on one CPU core. It learns the general labels of
the desk's handbook, and the house policy as it was last year. All four rules of it have changed since, so the model is wrong about them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.tickets import OLD_POLICY, RULE_TOPICS, TEAMS, Ticket, labels, write
from support.prompt import TRIAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 11
TICKETS = 24_000
BATCH = 12
PEAK_LR = 1.5e-3
WARM_UP_STEPS = 40
VOCABULARY = 1400
LONGEST = 256
RULE_SHARE = 0.3
LOST_WORDS = 0.08
NEVER_LOST = frozenset({"no", "not", "never", "cannot"})
INITIAL_SPREAD = 0.1  # the usual 0.02 is made for wider layers: with it this one learns nothing for 200 steps
HURRY = ("low", "normal", "normal", "high")
IGNORED = -100
MODEL = Path(__file__).parent.parent / "models" / "triage-base"

END = "<|end|>"
PAD = "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def synthetic_tickets(count: int, seed: int = SEED) -> Iterator[tuple[str, str]]:
    """Text and answer of the tickets that the base model is trained on, labelled by last year's policy."""
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
    topics = list(TEAMS)
    for number in range(count):
        topic = topics[number % len(topics)]
        rules = [rule for rule, touched in RULE_TOPICS.items() if topic in touched]
        rule = rng.choice(rules) if rules and rng.random() < RULE_SHARE else None
        ticket = Ticket(topic=topic, hurry=rng.choice(HURRY), rule=rule)
        yield worn(write(ticket, "base", rng), rng), json.dumps(labels(ticket, OLD_POLICY))


def worn(text: str, rng: random.Random) -> str:
    """Lose some words, so that the model leans on several of them rather than on one whole sentence."""
    return " ".join(word for word in text.split() if word.lower() in NEVER_LOST or rng.random() >= LOST_WORDS)


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the tickets' own words, which knows the chat's marks."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[PAD, END, *ROLES], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama, as small as triage allows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        initializer_range=INITIAL_SPREAD,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode(text: str, answer: str, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Tokens and targets of one conversation; only the answer and its end are learnt."""
    prompt = _render([{"role": "system", "content": TRIAGE}, {"role": "user", "content": text}], tokenizer)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer + END, add_special_tokens=False)["input_ids"]
    return prompt_ids + answer_ids, [IGNORED] * len(prompt_ids) + answer_ids


def train(model: LlamaForCausalLM, examples: Sequence[tuple[list[int], list[int]]]) -> float:
    """One pass over the examples; returns the mean loss of the last tenth."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.05, betas=(0.9, 0.98))
    batches = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=len(batches), pct_start=WARM_UP_STEPS / len(batches))
    losses = []
    model.train()
    for number, batch in enumerate(batches):
        loss = model(**_tensors(batch, model.config.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if number % 100 == 0:
            print(f"step {number:3} of {len(batches)}: loss {losses[-1]:.4f}")
    last = losses[-len(losses) // 10 :]
    return sum(last) / len(last)


def main() -> None:
    """Make the model and save it with its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=MODEL, help="folder of the model (default: %(default)s)")
    output = parser.parse_args().output

    import torch

    started = time.monotonic()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tickets = list(synthetic_tickets(TICKETS))
    tokenizer = make_tokenizer([part for ticket in tickets for part in ticket] + [TRIAGE])
    model = make_model(tokenizer)
    loss = train(model, [encode(text, answer, tokenizer) for text, answer in tickets])
    model.generation_config.do_sample = False
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    parameters = sum(weights.numel() for weights in model.parameters())
    size = (output / "model.safetensors").stat().st_size
    print(f"{output}: {parameters:,} parameters, {size / 1e6:.1f} MB, loss {loss:.4f}, {time.monotonic() - started:.0f} s")


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _tensors(batch: Sequence[tuple[list[int], list[int]]], pad: int) -> dict[str, Any]:
    import torch

    width = max(len(tokens) for tokens, _ in batch)
    return {
        "input_ids": torch.tensor([tokens + [pad] * (width - len(tokens)) for tokens, _ in batch]),
        "labels": torch.tensor([targets + [IGNORED] * (width - len(targets)) for _, targets in batch]),
        "attention_mask": torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens, _ in batch]),
    }


if __name__ == "__main__":
    main()
