import pytest

from mae_lightning.secrets import redact, redact_arguments


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ("https://user:canary@host/a.tar", "https://***@host/a.tar"),
        ("https://canary@host/{000..127}.tar", "https://***@host/{000..127}.tar"),
        ("https://host/a.tar?sig=canary&exp=7", "https://host/a.tar?sig=***&exp=***"),
        ("https://user:c@nary@host/a.tar#canary", "https://***@host/a.tar#***"),
        ("https://host/a.tar?canary", "https://host/a.tar?***"),
        ("no 'https:/user:canary@host/a.ckpt' is there", "no 'https:/***@host/a.ckpt' is there"),
        ("{train: a, hf_token: canary, val: b}", "{train: a, hf_token: ***, val: b}"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("shards/a?b=c.tar", "shards/a?b=c.tar"),
        ("mail@example", "mail@example"),
    ],
)
def test_urls_lose_their_secrets_and_nothing_else(value: str, hidden: str) -> None:
    assert redact(value) == hidden


@pytest.mark.parametrize(
    "name", ["token", "hf_token", "stage.model.token", "API_KEY", "password", "secret_access_key", "credentials"]
)
def test_settings_named_like_secrets_are_hidden(name: str) -> None:
    assert redact({"data": {"init_args": {name: "canary"}}}) == {"data": {"init_args": {name: "***"}}}


@pytest.mark.parametrize("name", ["tokens", "num_tokens", "tokenizer", "subtoken", "keys"])
def test_settings_that_merely_sound_so_are_kept(name: str) -> None:
    assert redact({name: "four"}) == {name: "four"}


def test_tokens_of_a_model_are_no_secrets() -> None:
    settings = {"model": {"init_args": {"mask_token_in_encoder": "bert", "class_token": "kept"}}, "hf_token": "canary"}
    assert redact(settings) == settings | {"hf_token": "***"}
    words = "model.init_args.mask_token_in_encoder=bert, class_token: kept"
    assert redact(words) == words
    assert redact_arguments(["--pretrain.model.init_args.mask_token_in_encoder", "bert"])[1] == "bert"


def test_lists_and_plain_values_are_kept() -> None:
    settings = {"a": [1, None, {"b": "https://x@y/z"}], "c": True}
    assert redact(settings) == {"a": [1, None, {"b": "https://***@y/z"}], "c": True}


def test_command_lines_lose_theirs() -> None:
    words = [
        "fit",
        "--data.init_args.api_key=canary",
        "--data.token",
        "canary",
        "--seed",
        "3",
        "--x=https://canary@y/z",
    ]
    shown = ["fit", "--data.init_args.api_key=***", "--data.token", "***", "--seed", "3", "--x=https://***@y/z"]
    assert redact_arguments(words) == shown
