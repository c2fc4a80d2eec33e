"""Endpoints: what passes is tried again, what does not is one line, and a key goes nowhere but into its header."""

import pytest
from loopback import asked, chat, endpoint, free_port

from playpen import endpoints
from playpen.config import PlaypenError, make_config
from playpen.endpoints import ChatEndpoint, Connection, RefusedRequest, in_threads, read_key

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Wait a hundredth of the usual time between tries."""
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)


def in_turn(*answers):
    """Return a reply that gives these answers one after the other, the last one for ever."""
    left = list(answers)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    "passing", [(429, {"error": "slow down"}), (503, b"down"), (500, b""), (408, b""), (200, b"no JSON"), (200, [1])]
)
def test_what_passes_is_tried_again(passing):
    with endpoint(in_turn(passing, passing, {"well": True})) as server:
        assert Connection(server.url, None).post("/x", {"a": 1}) == {"well": True}
    assert server.bodies == [{"path": "/v1/x", "a": 1}] * 3


def test_what_does_not_pass_in_six_tries_is_one_line():
    with endpoint(in_turn((503, {"error": "over\n\nloaded"}))) as server, pytest.raises(PlaypenError) as error:
        Connection(server.url, None).post("/x", {})
    assert len(server.bodies) == 6
    assert str(error.value) == (
        f'{server.url} answered 503 ({{"error": "over\\n\\nloaded"}}), 6 times in a row; what is finished is kept: '
        "run again when it is well"
    )


def test_an_endpoint_says_how_long_to_wait():
    assert [endpoints._seconds(asked, 3) for asked in ("7", "700", None, "Wed, 21 Oct 2026 07:28:00 GMT")] == [
        7.0,
        60.0,
        0.08,
        0.08,
    ]


@pytest.mark.parametrize(("status", "hint"), [(401, "is the key right"), (404, "the model's name"), (301, "the model's name")])
def test_what_would_be_refused_for_every_request_ends_at_once_and_hides_the_key(status, hint):
    with endpoint(in_turn((status, {"error": f"wrong key {KEY}"}))) as server, pytest.raises(PlaypenError, match=hint) as error:
        Connection(server.url, "TEST_KEY").post("/x", {})
    assert len(server.bodies) == 1
    assert KEY not in str(error.value)
    assert "wrong key ***" in str(error.value)


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_what_is_refused_for_one_request_is_told_to_the_caller(status):
    with (
        endpoint(in_turn((status, {"error": "content filter"}))) as server,
        pytest.raises(RefusedRequest, match="content filter"),
    ):
        Connection(server.url, None).post("/x", {})
    assert len(server.bodies) == 1


def test_an_endpoint_out_of_reach_is_one_line_at_once():
    with pytest.raises(PlaypenError, match=r"http://127\.0\.0\.1:\d+ is out of reach \(.*refused.*\); is the address right"):
        Connection(f"http://127.0.0.1:{free_port()}", None).post("/x", {})


def test_the_key_comes_from_the_environment_and_stands_in_the_header_alone():
    with endpoint(in_turn({})) as server:
        Connection(server.url, "TEST_KEY").post("/x", {})
        Connection(server.url, None).post("/x", {})
    assert [headers.get("authorization") for headers in server.headers] == [f"Bearer {KEY}", None]
    with pytest.raises(
        PlaypenError, match="the environment variable NO_SUCH_KEY, which should hold the key of http://a, is not set"
    ):
        read_key("NO_SUCH_KEY", "http://a")


def test_a_request_says_what_the_config_says():
    def sent(**changes):
        with endpoint(lambda body: chat(asked(body).upper())) as server:
            model = ChatEndpoint(url=server.url + "/", model="owl", **changes)
            choice = model.ask(Connection(model.url, None), [{"role": "user", "content": "hello"}])
        assert choice["message"]["content"] == "HELLO"
        return server.bodies[0]

    same = {"path": "/v1/chat/completions", "model": "owl", "messages": [{"role": "user", "content": "hello"}]}
    assert sent() == {**same, "max_tokens": 1024, "temperature": 0.0}
    other = sent(temperature=None, max_new_tokens=7, length_field="max_completion_tokens")
    assert other == {**same, "max_completion_tokens": 7}


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": ["x"]}, {"choices": [{"text": "x"}]}])
def test_an_answer_without_choices_is_refused(answer):
    with endpoint(in_turn(answer)) as server, pytest.raises(RefusedRequest, match="an answer without choices"):
        ChatEndpoint(url=server.url, model="owl").ask(Connection(server.url, None), [])


def test_an_address_without_http_is_refused():
    with pytest.raises(PlaypenError, match="field 'url': must start with http:// or https://, found 'localhost:8000'"):
        make_config(ChatEndpoint, {"url": "localhost:8000", "model": "owl"}, "test")


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_every_item_is_worked_on_once_and_the_first_error_ends_all(threads):
    assert sorted(in_threads(lambda x: x * x, list(range(20)), threads)) == [x * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda x: 1 // x, [1, 0, 2], threads))
