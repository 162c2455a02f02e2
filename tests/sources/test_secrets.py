"""No secret of a link or of the environment is left in a text."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.sources.network import _given_up
from wetmap.sources.secrets import SECRET_VARIABLES, address, without_secrets
from wetmap.sources.trouble import diagnose

#: Letters that signatures are made of, in links as they come and as they are escaped.
SECRETS = st.text(string.ascii_letters + string.digits + "+/=-_.~()", min_size=8, max_size=40).map(lambda t: f"S9{t}")
NAMES = st.sampled_from(["sig", "X-Amz-Signature", "token", "AWSAccessKeyId", "Signature", "whatever"])
PLACES = st.sampled_from(
    [
        "HTTP 403 for {link}.",
        "'/vsicurl/{link}' not recognized as being in a supported file format",
        "({link}), and again",
        'CURL error: <a href="{link}">',
        "the query was {secret}",
        "sig={secret}&se=2021",
        "<StringToSign>GET {secret}</StringToSign>",
        "redirected to https://user:{secret}@elsewhere.org/a?x={secret}",
        "Authorization: Bearer {secret}",
        "{escaped}",
    ]
)


@settings(deadline=None, max_examples=200)
@given(secret=SECRETS, name=NAMES, place=PLACES, escape=st.booleans())
def test_what_is_said_holds_no_secret_of_the_link(secret: str, name: str, place: str, escape: bool) -> None:
    value = quote(secret, safe="") if escape else secret
    link = f"https://store.example.org/scene/B03.tif?sv=1&{name}={value}"
    text = place.format(link=link, secret=secret, escaped=value)
    for said in (
        without_secrets(text, link),
        str(_given_up(address(link), diagnose(OSError(text), f"s3{link}", 1), 2, 3)),
    ):
        assert secret not in said
        assert value not in said


@settings(deadline=None, max_examples=50)
@given(secret=SECRETS)
def test_user_and_password_are_cut_out(secret: str) -> None:
    link = f"https://me9:{quote(secret, safe='')}@store.example.org/a.tif"
    assert address(link) == "https://store.example.org/a.tif"
    said = without_secrets(f"no {link} for {secret} of me9", link)
    assert secret not in said


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_values_of_the_environment_are_cut_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "wJalrXUtnFEMI")
    said = without_secrets("The key wJalrXUtnFEMI does not exist in our records")
    assert said == "The key ... does not exist in our records"


def test_ordinary_words_stay() -> None:
    text = "s3://eodata/S2/B03.jp2 cannot be read (the server answers 404: not there; tried 3 times in 2 s)."
    assert without_secrets(text, "s3://eodata/S2/B03.jp2") == text
    assert address("https://x.net/a.tif?sig=abc#part") == "https://x.net/a.tif"
    said = without_secrets("HTTP 403 for https://x.net/a.tif?sv=1&sig=abc, and '/vsicurl/https://x.net/b?sig=def'")
    assert said == "HTTP 403 for https://x.net/a.tif and '/vsicurl/https://x.net/b'"
