import json

import pytest
import torch

import core.models
from core.errors import SpecError
from core.models.catalogue import MODELS, entry_of
from core.models.tokenizer import ByteTokenizer
from core.spec.model import ModelSpec

SMALL = {"dim": 32, "depth": 2, "heads": 4}
FIT = {
    "builtin:vit": ("image_task", SMALL),
    "builtin:resnet": ("image_task", {"depth": 8, "width": 4}),
    "builtin:gpt": ("language_task", SMALL),
    "builtin:encoder": ("text_task", SMALL),
}


def load(source, task, seed=0, **settings):
    return core.models.load(ModelSpec(source=source, **settings), task, torch.Generator().manual_seed(seed))


def problem_of(source, task, **settings):
    with pytest.raises(SpecError) as caught:
        load(source, task, **settings)
    return caught.value.problems[0]


def batch_of(task, size=2):
    if task.image_shape:
        return {"pixel_values": torch.randn(size, *task.image_shape)}
    return {"input_ids": torch.randint(0, 256, (size, task.length))}


@pytest.mark.parametrize("source", FIT)
def test_weights_depend_on_the_generator_alone(source, request):
    name, settings = FIT[source]
    task = request.getfixturevalue(name)
    torch.manual_seed(1)
    first = load(source, task, **settings)
    state = torch.get_rng_state()
    same, other = load(source, task, **settings), load(source, task, seed=1, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), same.module.parameters(), strict=True))
    assert not torch.equal(first.module.head.weight, other.module.head.weight)
    assert not first.trained and first.content_hash == same.content_hash


@pytest.mark.parametrize("source", FIT)
def test_resolved_config_is_json_and_builds_the_same_model(source, request):
    name, settings = FIT[source]
    task = request.getfixturevalue(name)
    loaded = load(source, task, **settings)
    model = core.models.build(json.loads(json.dumps(loaded.config)))
    model.load_state_dict(loaded.module.state_dict())
    batch = batch_of(task)
    assert torch.equal(model(**batch), loaded.module(**batch))
    with torch.device("meta"):
        on_meta = load(source, task, **settings).module
    assert on_meta(**{k: v.to("meta") for k, v in batch.items()}).shape == model(**batch).shape


@pytest.mark.parametrize("source", FIT)
def test_every_parameter_gets_a_gradient(source, request):
    name, settings = FIT[source]
    task = request.getfixturevalue(name)
    model = load(source, task, **settings).module.train()
    model(**batch_of(task)).square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.any() for grad in grads.values())


@pytest.mark.parametrize(("size", "patch"), [(8, 2), (28, 4), (32, 4), (64, 8), (224, 14)])
def test_patch_is_chosen_from_the_image(size, patch, image_task):
    image_task.image_shape = (3, size, size)
    config = core.models.describe(ModelSpec(source="builtin:vit"), image_task).config
    assert config["patch"] == patch and config["image_size"] == [size, size] and config["channels"] == 3


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vit_knows_where_a_patch_is(pooling, image_task):
    model = load("builtin:vit", image_task, pooling=pooling, **SMALL).module
    image = torch.zeros(1, 1, 8, 8)
    moved = image.clone()
    image[..., :2, :2], moved[..., 2:4, 2:4] = 1.0, 1.0
    assert not torch.allclose(model(image), model(moved))


@pytest.mark.parametrize("settings", [{}, {"positions": "rotary"}, {"attention": "sliding_window", "window": 5}])
def test_gpt_sees_no_later_token(settings, language_task):
    model = load("builtin:gpt", language_task, **SMALL, **settings).module
    ids = torch.randint(0, 256, (1, 20))
    changed = ids.clone()
    changed[0, 12:] = 7
    torch.testing.assert_close(model(ids)[:, :12], model(changed)[:, :12])
    assert not torch.allclose(model(ids)[:, 12:], model(changed)[:, 12:])


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
@pytest.mark.parametrize("settings", [{}, {"positions": "rotary"}, {"attention": "sliding_window", "window": 5}])
def test_decoding_with_the_cache_equals_recomputation(settings, ffn, language_task):
    model = load("builtin:gpt", language_task, kv_heads=2, ffn=ffn, **SMALL, **settings).module
    ids = torch.randint(0, 256, (2, 30))
    cache = model.make_cache(30)
    pieces = [model(piece, cache=cache) for piece in ids.split([9, 1, 1, 6, 1, 12], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=1e-5, atol=1e-5)


def test_generation_continues_with_the_likeliest(language_task):
    model = load("builtin:gpt", language_task, **SMALL).module
    prompt = torch.randint(0, 256, (2, 5))
    made = model.generate(prompt, 6, temperature=0)
    ids = prompt
    for _ in range(6):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(made, ids)


def test_sampling_keeps_to_the_likeliest_and_to_its_generator(language_task):
    model = load("builtin:gpt", language_task, **SMALL).module
    prompt = torch.randint(0, 256, (64, 5))

    def sampled(seed, **options):
        return model.generate(prompt, 1, generator=torch.Generator().manual_seed(seed), **options)[:, -1:]

    best = model(prompt)[:, -1].topk(3).indices
    assert (sampled(0, top_k=3) == best).any(dim=1).all()
    assert torch.equal(sampled(0, top_k=1), best[:, :1])
    assert torch.equal(sampled(0), sampled(0)) and not torch.equal(sampled(0), sampled(1))


def test_generation_past_learned_positions_is_refused_and_past_rotary_is_not(language_task):
    prompt = torch.randint(0, 256, (1, 30))
    with pytest.raises(ValueError, match="context of 32"):
        load("builtin:gpt", language_task, **SMALL).module.generate(prompt, 3)
    rotary = load("builtin:gpt", language_task, positions="rotary", **SMALL).module
    assert rotary.generate(prompt, 10).shape == (1, 40)


def test_head_is_tied_unless_asked_otherwise(language_task):
    tied = load("builtin:gpt", language_task, **SMALL).module
    untied = load("builtin:gpt", language_task, tied=False, **SMALL).module
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight and untied.head.weight.abs().sum() > 0


def test_what_enters_the_residual_stream_of_gpt_is_scaled_by_depth(language_task):
    block = load("builtin:gpt", language_task, dim=128, depth=8).module.blocks[0]
    assert block.ffn.up.weight.std().item() == pytest.approx((2 / 5 / 128) ** 0.5, rel=0.05)
    assert (block.ffn.down.weight.std() / block.ffn.up.weight.std()).item() == pytest.approx(0.25, rel=0.05)
    assert (block.attention.o.weight.std() / block.attention.q.weight.std()).item() == pytest.approx(0.25, rel=0.05)


def test_gpt_scales_its_embeddings_by_its_width_unless_told(language_task):
    assert embedding_stds("builtin:gpt", language_task, dim=256) == pytest.approx([(2 / 5 / 256) ** 0.5] * 2, rel=0.02)
    assert embedding_stds("builtin:gpt", language_task, dim=256, embedding_std=0.3) == pytest.approx(
        [0.3] * 2, rel=0.02
    )


def test_encoder_scales_its_embeddings_by_its_width_unless_told(text_task):
    assert embedding_stds("builtin:encoder", text_task, dim=256) == pytest.approx([256**-0.5] * 2, rel=0.02)
    told = {"dim": 256, "embedding_std": 0.3, "pooling": "cls"}
    assert embedding_stds("builtin:encoder", text_task, **told) == pytest.approx([0.3] * 2, rel=0.02)
    assert load("builtin:encoder", text_task, depth=1, **told).module.cls.std().item() == pytest.approx(0.3, rel=0.15)


def embedding_stds(source, task, **settings):
    model = load(source, task, depth=1, length=512, **settings).module
    return [model.embedding.weight.std().item(), model.position_embedding.weight.std().item()]


@pytest.mark.parametrize("settings", [{}, {"tied": False}, {"positions": "rotary"}])
def test_the_embeddings_alone_take_another_standard_deviation(settings, language_task):
    own = (2 / 5 / 32) ** 0.5
    default, wider = (
        load("builtin:gpt", language_task, embedding_std=std, **SMALL, **settings).module.state_dict()
        for std in (None, 3 * own)
    )
    scaled = {name for name in default if name.split(".")[0] in ("embedding", "position_embedding")}
    scaled |= set() if settings.get("tied") is False else {"head.weight"}
    for name, weight in default.items():
        torch.testing.assert_close(wider[name], weight * (3 if name in scaled else 1), rtol=1e-5, atol=0)


MADE_BEFORE = {  # content hashes from before `embedding_std` was there
    "builtin:gpt": "959d3c78553fbff7d391f6307b545150501b16fe2835602ccc1af66561ae5462",
    "builtin:encoder": "fb4024ed8aff9767a4e8fc4991806f8816701e4a198b535a67e99e38ed13114b",
}


@pytest.mark.parametrize("source", MADE_BEFORE)
def test_a_setting_that_came_later_changes_no_content_hash_where_it_is_left_out(source, request):
    task = request.getfixturevalue(FIT[source][0])
    assert load(source, task, **SMALL).content_hash == MADE_BEFORE[source]
    assert load(source, task, embedding_std=0.1, **SMALL).content_hash != MADE_BEFORE[source]


@pytest.mark.parametrize("source", MADE_BEFORE)
@pytest.mark.parametrize("std", [0, -0.1, 1.5, "wide"])
def test_a_standard_deviation_out_of_range_is_refused_by_field(std, source, request):
    problem = problem_of(source, request.getfixturevalue(FIT[source][0]), embedding_std=std)
    assert problem.field == "model.embedding_std" and problem.value == std and problem.remedy


@pytest.mark.parametrize("settings", [{}, {"pooling": "cls"}, {"attention": "sliding_window", "window": 3}])
def test_encoder_does_not_see_padding(settings, text_task):
    model = load("builtin:encoder", text_task, **SMALL, **settings).module
    ids = torch.randint(0, 256, (2, 9))
    padded = torch.cat((ids, torch.full((2, 11), 256)), dim=1)
    mask = (torch.arange(20) < 9).long().expand(2, -1)
    torch.testing.assert_close(model(padded, attention_mask=mask), model(ids), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(padded), model(ids))


def test_resnet_has_as_many_weighted_layers_as_its_depth_says(image_task):
    model = load("builtin:resnet", image_task, depth=14, width=8).module
    main = [
        m for n, m in model.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) and "shortcut" not in n
    ]
    assert len(main) == 14
    assert [m.out_channels for m in main[:-1]] == [8] * 5 + [16] * 4 + [32] * 4
    assert problem_of("builtin:resnet", image_task, depth=15).remedy == "Choose 14 or 20."


REFUSED = [
    ("builtin:vit", {"heads": 5, "dim": 192}, "model.heads", "divide"),
    ("builtin:vit", {"patch": 3}, "model.patch", "divide"),
    ("builtin:vit", {"hedas": 3}, "model.hedas", "known"),
    ("builtin:vit", {"depth": 0}, "model.depth", "greater"),
    ("builtin:vit", {"window": 4}, "model.window", "only"),
    ("builtin:vit", {"attention": "sliding_window"}, "model.window", "required"),
    ("builtin:vit", {"attention": "sliding_window", "window": 4, "pooling": "cls"}, "model.pooling", "window"),
    ("builtin:vti", {}, "model.source", "not a known model source"),
    ("builtin:gpt", {}, "model.source", "language modelling"),
    ("run:3", {}, "model.source", "not a known model source"),
]


@pytest.mark.parametrize(("source", "settings", "field", "words"), REFUSED)
def test_what_cannot_be_is_refused_by_field(source, settings, field, words, image_task):
    problem = problem_of(source, image_task, **settings)
    assert problem.field == field and words in problem.message and problem.remedy


def test_key_value_heads_must_divide_the_heads(language_task):
    assert problem_of("builtin:gpt", language_task, **{**SMALL, "kv_heads": 3}).field == "model.kv_heads"


def test_refusal_of_the_wrong_kind_lists_what_fits(image_task):
    remedy = problem_of("builtin:gpt", image_task).remedy
    assert "builtin:vit" in remedy and "builtin:resnet" in remedy and "builtin:encoder" not in remedy


@pytest.mark.parametrize("source", MODELS)
def test_every_setting_is_described(source):
    assert MODELS[source].__doc__
    assert all(field.description for field in MODELS[source].model_fields.values())


def test_sources_are_told_by_their_prefix():
    assert entry_of("hf:owner/name") == "hf" and entry_of("run:7") == "run" and entry_of("builtin:vit") == "builtin:vit"
    assert entry_of("builtin:x") is None and entry_of("stage:1") is None and entry_of("hf") == "hf"


def test_bytes_come_back_as_the_same_text():
    tokenizer = ByteTokenizer()
    text = "naïve → 模型\n"
    ids = tokenizer.encode(text)
    assert ids == list(text.encode()) and tokenizer.decode([*ids, tokenizer.pad_id]) == text
    assert max(ids) < tokenizer.pad_id < tokenizer.vocab_size


@pytest.mark.parametrize(("positions", "same"), [("rotary", True), ("learned", False)])
def test_an_encoder_with_rotary_positions_knows_distances_only(positions, same, text_task):
    model = load("builtin:encoder", text_task, positions=positions, **SMALL).module.eval()
    ids = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
    shifted = torch.nn.functional.pad(ids, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (3, 0))
    assert torch.allclose(model(ids), model(shifted, attention_mask=mask), atol=1e-5) == same
    assert not torch.allclose(model(ids), model(ids.flip(1)), atol=1e-4)


def test_heads_of_odd_width_are_refused_rotary_positions(text_task, language_task):
    for source, task in (("builtin:encoder", text_task), ("builtin:gpt", language_task)):
        problem = problem_of(source, task, dim=36, heads=4, depth=1, positions="rotary")
        assert problem.field == "model.heads" and problem.value == 4
