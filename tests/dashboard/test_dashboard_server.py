"""`playpen serve` answers this machine with the features that the SAE has on a text, and nobody and nothing else."""

import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from threading import Thread

import numpy as np
import pytest
import synthetic
import tiny
import torch

from playpen import cli
from playpen.activations import capture, find_hook
from playpen.config import PlaypenError
from playpen.dashboard import server
from playpen.dashboard.encode_text import summarise
from playpen.dashboard.page import write_page
from playpen.machine import Machine
from playpen.models import load_base, load_tokenizer, model_files
from playpen.saes import open_sae, write_sae
from playpen.tables import write_json

CPU, HOOK, D_SAE = Machine(device="cpu"), "model.layers.0.output", 96
TEXT = "Where is the red stone?\nUnder the bridge \U0001f9d1."


def random_sae(path, base):
    """Write a SAE of random weights, of which some features are active on any token."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=32, d_sae=D_SAE))
    sae.threshold.data.fill_(4.0)
    sae.W_enc.data = torch.randn((32, D_SAE), generator=torch.Generator().manual_seed(0))
    return tiny.write_artifact(path, "load-sae", lambda out: write_sae(out, sae, HOOK, model_files(base).base_id) and None)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    random_sae(path / "sae", tiny.tiny_base(path / "base"))

    def fill(out):
        synthetic.write(out, features=64, documents=60)
        write_page(out, "Served")
        write_json(out / "serve.json", {"sae": "../sae", "model": "../base"})

    tiny.write_artifact(path / "dashboard", "features", fill)
    return path


@pytest.fixture(scope="module")
def running(home):
    made = server.make_server(home / "dashboard", 0, CPU)
    thread = Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(running, method, path, body=None, **headers):
    """Send a request as it stands and return (status, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def encode(running, text, **headers):
    body = text if isinstance(text, bytes) else json.dumps({"text": text}).encode()
    status, answer = ask(running, "POST", "/api/encode", body, **{"Content_Type": "application/json", **headers})
    return status, json.loads(answer)


def dense(home, text):
    """Return the SAE's strengths [tokens, features] by its own dense encoding, the BOS left out."""
    base, sae, tokenizer = load_base(home / "base", CPU), open_sae(home / "sae", CPU), load_tokenizer(home / "base")
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        return sae.encode(capture(base, find_hook(base, HOOK), ids, torch.ones_like(ids))[0, 1:]).numpy()


def test_a_texts_features_are_those_of_the_dense_encoding(home, running):
    status, found = encode(running, TEXT)
    expected = dense(home, TEXT)
    assert status == 200
    assert len(found["tokens"]) == len(expected)
    for token, row in zip(found["tokens"], expected, strict=True):
        order = [i for i in np.argsort(-row, kind="stable") if row[i] > 0][: len(token["features"])]
        assert [ident for ident, _ in token["features"]] == order
        assert [value for _, value in token["features"]] == pytest.approx(row[order], rel=1e-3)
    for name, values in (("by_max", expected.max(0)), ("by_mean", expected.mean(0))):
        assert len(found[name]) == min(50, (values > 0).sum())
        assert [value for _, value in found[name]] == pytest.approx(sorted(values, reverse=True)[: len(found[name])], rel=1e-3)
        assert [values[ident] for ident, _ in found[name]] == pytest.approx([value for _, value in found[name]], rel=1e-3)
    shown = {ident for ident, _ in found["by_max"] + found["by_mean"]}
    assert set(found["strengths"]) == {str(ident) for ident in shown}
    for ident in shown:
        back = np.zeros(len(expected))
        for token, strength in found["strengths"][str(ident)]:
            back[token] = strength
        assert back == pytest.approx(expected[:, ident], rel=1e-3, abs=1e-6)


def test_the_tokens_make_up_the_text(running):
    plain = "Where is the red stone? It was there before."
    assert "".join(token["text"] for token in encode(running, plain)[1]["tokens"]) == plain


def test_ties_go_to_the_lower_id_and_means_count_silent_tokens():
    token, feature, strength = np.array([0, 0, 2]), np.array([7, 3, 3]), np.array([2.0, 2.0, 1.0], np.float32)
    found = summarise(["a", "b", "c"], token, feature, strength)
    assert found["by_max"] == [(3, 2.0), (7, 2.0)]
    assert found["by_mean"] == [(3, 1.0), (7, 0.66667)]
    assert [each["features"] for each in found["tokens"]] == [[(3, 2.0), (7, 2.0)], [], [(3, 1.0)]]
    assert found["strengths"] == {3: [(0, 2.0), (2, 1.0)], 7: [(0, 2.0)]}


def test_the_page_and_its_data_are_served_and_nothing_else(home, running):
    assert ask(running, "GET", "/")[1] == (home / "dashboard" / "index.html").read_bytes()
    assert ask(running, "GET", "/data/list.js")[1] == (home / "dashboard" / "data" / "list.js").read_bytes()
    for path in (
        "/manifest.json",
        "/serve.json",
        "/data/",
        "/data/../serve.json",
        "/../base/model.json",
        "/data/%2e%2e/serve.json",
    ):
        assert ask(running, "GET", path)[0] == 404, path
    assert json.loads(ask(running, "GET", "/api")[1]) == {"model": "base", "max_tokens": 255, "max_bytes": 65536}


def test_only_this_machine_may_ask(running):
    own = f"127.0.0.1:{running.server_port}"
    assert running.server_address[0] == "127.0.0.1"
    assert ask(running, "GET", "/", Host="evil.example")[0] == 403
    status, found = encode(running, "x", Origin="http://evil.example")
    assert status == 403
    assert found == {"error": "a page from http://evil.example may not ask this server"}
    assert encode(running, "x", Origin="null")[0] == 403
    assert encode(running, "x", Origin=f"https://{own}")[0] == 403
    assert encode(running, "x", Origin=f"http://{own}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"{", 400, "the request is no JSON"),
        (b'["x"]', 400, 'the request must be {"text": "..."}'),
        (b'{"text": 5}', 400, 'the request must be {"text": "..."}'),
        (b'{"text": "\\ud800"}', 400, "the text is not valid Unicode"),
        (b'{"text": ""}', 422, "the text has 0 tokens, expected 1 to 255; give a text"),
        (json.dumps({"text": "stone " * 400}).encode(), 422, "expected 1 to 255; give a shorter text"),
        (b" " * 70000, 413, "the request has 70000 bytes, at most 65536 are read; give a shorter text"),
    ],
    ids=["no JSON", "a list", "a number", "half a pair", "empty", "long", "huge"],
)
def test_a_bad_request_is_answered_in_one_line(running, body, status, problem):
    found = encode(running, body)
    assert found[0] == status
    assert problem in found[1]["error"]
    assert "\n" not in found[1]["error"]


def test_what_is_no_json_by_its_type_is_refused(running):
    assert encode(running, "x", Content_Type="text/plain")[0] == 415


def test_what_does_not_fit_ends_in_one_line(home, tmp_path):
    with pytest.raises(PlaypenError, match="holds no dashboard: expected an artifact of features"):
        server.make_server(home / "base", 0, CPU)
    write_page(tmp_path, "Moved")
    write_json(tmp_path / "serve.json", {"sae": "../gone", "model": str(home / "base")})
    with pytest.raises(PlaypenError, match=r"its sae should lie in .*gone, which is not there; was it moved or deleted\?"):
        server.make_server(tmp_path, 0, CPU)


def test_a_port_in_use_is_told_in_one_line(home, running):
    with pytest.raises(PlaypenError, match=f"port {running.server_port} cannot be used .*; give another, or leave --port out"):
        server.make_server(home / "dashboard", running.server_port, CPU)


def test_the_command_serves_until_ctrl_c(home, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answers = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored

    def ask_then_stop():
        while not answers:
            try:
                answers.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=20).status)
            except urllib.error.URLError:
                time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    asking = Thread(target=ask_then_stop)
    asking.start()
    cli.main(["serve", str(home / "dashboard"), "--port", str(port), "--machine.device", "cpu"])
    asking.join()
    assert answers == [200]
    assert capsys.readouterr().out == f"{home / 'dashboard'} is at http://127.0.0.1:{port} (Ctrl-C stops)\nstopped\n"


def test_the_page_shows_a_pasted_text_coloured_by_its_features(home, running, visit):
    from playwright.sync_api import expect

    window = visit(f"http://127.0.0.1:{running.server_port}/")
    page = window.go("#view=paste")
    page.locator("textarea").fill(TEXT)
    page.keyboard.press("Control+Enter")
    expected = dense(home, TEXT)
    expect(page.locator(".pasted-text .t")).to_have_count(len(expected))
    best = int(expected.max(0).argmax())
    rows = page.locator(".relatives").first.locator("li")
    expect(rows.first).to_contain_text(f"#{best}")
    heats = page.locator(".pasted-text .t").evaluate_all("all => all.map(t => Number(t.style.getPropertyValue('--heat')))")
    assert heats == pytest.approx(expected[:, best] / expected[:, best].max(), abs=0.001)
    page.locator(".pasted-text .t").nth(3).hover()
    strongest = int(expected[3].argmax())
    expect(page.locator("#tip")).to_contain_text(f"#{strongest}")
    other = page.get_by_role("button", name="Colour the text by").nth(1)
    other.click()
    expect(page.get_by_role("button", name="Colour the text by").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("textarea").fill("stone " * 400)
    page.get_by_role("button", name="show its features").click()
    expect(page.locator("#pasted .problem")).to_contain_text("expected 1 to 255")
    assert window.problems == ["error: Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"]
    window.problems.clear()
