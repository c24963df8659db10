"""The health gate: does the daemon of this device answer over its own broker? A ping, then a few generated tokens."""

import json
import queue
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgebit.daemon.admission.signed_requests import envelope, local_code, text_to_sign
from edgebit.daemon.config.reader import read_config, read_password
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.tls import tls_context
from edgebit.daemon.contract.topics import is_principal
from edgebit.daemon.install.settings import CONFIG_NAME
from edgebit.daemon.monitoring.own_process import memory_mib
from edgebit.daemon.privacy.local_key import LOCAL_KEY
from edgebit.errors import BrokerError, ConfigError, DeployError, NoAnswerError

PROMPT = "Hello"
TOKENS = 4
TOKENS_FOR_SPEED = 32
_PING_INTERVAL_S = 1.0  # a request before the daemon has subscribed is lost, so it is sent again
_CONNECT_TIMEOUT_S = 15.0
_ECHO_S = 3.0  # for a broker to give back what was sent to a topic that is listened to


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a daemon must hold besides answering; 0 asks for nothing."""

    stay_up_s: float = 0.0  # without a restart after its first answer, and then it must answer again
    min_tok_s: float = 0.0  # decode
    rss_max_mib: float = 0.0  # of its own memory, mapped files such as the model aside


def check_health(
    root: Path,
    identity: str,
    timeout_s: float,
    alive: Callable[[], bool],
    limits: Limits | None = None,
    pid: Callable[[], int | None] = lambda: None,
) -> dict[str, Any]:
    """Ask the daemon of `root` for an answer; gives its device name, seconds until ping and answer, speed and memory.

    `identity` is the bundle that must answer; `alive` says whether the daemon is still meant to come up, `pid` which
    process it is. Faults, by their exit codes: BrokerError where the device cannot reach the broker, is refused by it,
    or may not write or read the topics of question and answer, ConfigError where the settings are wrong or another
    device has this one's name; and, which speak against the bundle, NoAnswerError where the daemon is silent or answers
    with an error, DeployError where it misses a limit.
    """
    limits = limits or Limits()
    config = read_config(root / CONFIG_NAME)
    began = time.monotonic()
    deadline = began + timeout_s
    with _Caller(config, min(timeout_s, _CONNECT_TIMEOUT_S), root / "state") as caller:
        pong = _first_pong(caller, deadline, timeout_s, alive)
        ping_s = time.monotonic() - began
        answer = _first_answer(caller, deadline, timeout_s, TOKENS_FOR_SPEED if limits.min_tok_s else TOKENS)
        answer_s, process = time.monotonic() - began, pid()
        if "error" not in answer:
            _watch(limits.stay_up_s, process, pid)
        pong = caller.ask("ping", {}, _PING_INTERVAL_S * 10) or {"error": {"message": "silent after its first answer"}}
    for reply in (pong, answer):
        if "error" in reply:
            raise NoAnswerError(f"the daemon answered with an error: {reply['error'].get('message', reply['error'])}")
    if pong.get("bundle", identity) != identity:
        if pong["bundle"] is None:  # that stands in a pong until the model is loaded, and it was when it answered
            raise NoAnswerError("the daemon answered, and then ended: its next process still loads the model")
        raise ConfigError(
            f"bundle {pong['bundle']} answers as {config.device_name!r}, not {identity}: another device has that name"
            " at this broker. Give this one its own: --device-name"
        )
    tok_s, rss_mib = _tok_s(answer), memory_mib(process).get("RssAnon") if process is not None else None
    _hold_to(limits, tok_s, rss_mib)
    user = f"//{quote(config.mqtt.user, safe='')}@" if config.mqtt.user else "//"
    return {
        "device": config.device_name,
        "broker": config.mqtt.url.replace("//", user, 1),
        "ping_s": round(ping_s, 3),
        "answer_s": round(answer_s, 3),
        "tok_s": None if tok_s is None else round(tok_s, 2),
        "rss_mib": None if rss_mib is None else round(rss_mib, 1),
    }


def _first_pong(caller: "_Caller", deadline: float, timeout_s: float, alive: Callable[[], bool]) -> dict[str, Any]:
    """Ask until the daemon is up. Raises NoAnswerError, BrokerError."""
    while (pong := caller.ask("ping", {}, _PING_INTERVAL_S)) is None:
        if not alive():
            raise NoAnswerError("the daemon ended before it answered")
        if time.monotonic() > deadline:
            caller.must_be_connected()
            caller.must_be_let_through()
            raise NoAnswerError(f"the daemon did not answer a ping within {timeout_s:g} s")
    return pong


def _first_answer(caller: "_Caller", deadline: float, timeout_s: float, tokens: int) -> dict[str, Any]:
    """Ask until the daemon answers, or says what another try would not change. Raises NoAnswerError, BrokerError."""
    fields = {"prompt": PROMPT, "options": {"num_predict": tokens, "temperature": 0}, "cache": False}
    while True:
        left_s = max(deadline - time.monotonic(), _PING_INTERVAL_S)
        answer = caller.ask("generate", {**fields, "ttl_ms": int(left_s * 1000)}, left_s)
        if answer is None:
            caller.must_be_connected()
            raise NoAnswerError(f"the daemon answered a ping, but no prompt within {timeout_s:g} s")
        if not answer.get("error", {}).get("retryable") or time.monotonic() > deadline:
            return answer
        time.sleep(_PING_INTERVAL_S)  # busy with others' questions, or still loading


def _hold_to(limits: Limits, tok_s: float | None, rss_mib: float | None) -> None:
    """Raises DeployError where a limit is missed."""
    if limits.min_tok_s and (tok_s is None or tok_s < limits.min_tok_s):
        found = "no speed" if tok_s is None else f"{tok_s:.2f} tok/s"
        raise DeployError(f"it decodes at {found}, and {limits.min_tok_s:g} tok/s were asked for")
    if limits.rss_max_mib and rss_mib is not None and rss_mib > limits.rss_max_mib:
        raise DeployError(f"it holds {rss_mib:.0f} MiB of memory, and {limits.rss_max_mib:g} MiB were allowed")


def _watch(seconds: float, process: int | None, pid: Callable[[], int | None]) -> None:
    """Watch for a while that the same process stays. Raises NoAnswerError where it does not."""
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        if pid() != process:
            raise NoAnswerError("the daemon answered, and then ended")
        time.sleep(min(_PING_INTERVAL_S, left_s))


def _tok_s(answer: dict[str, Any]) -> float | None:
    """Decode speed by the answer's own count; None where it has none, or too few tokens."""
    count, duration_ns = answer.get("eval_count", 0), answer.get("eval_duration", 0)
    return count / duration_ns * 1e9 if count > 1 and duration_ns else None


def ping(config: Config, timeout_s: float) -> str:
    """Ask a daemon whether it has a model that answers; gives its bundle.

    Raises BrokerError where the broker cannot be reached, NoAnswerError where the daemon is silent or has no model.
    """
    deadline = time.monotonic() + timeout_s
    with _Caller(config, timeout_s) as caller:
        while (pong := caller.ask("ping", {}, _PING_INTERVAL_S)) is None:
            if time.monotonic() > deadline:
                caller.must_be_connected()
                raise NoAnswerError(f"{config.device_name} did not answer a ping within {timeout_s:g} s")
    if pong["state"] not in ("ready", "busy", "hot"):
        raise NoAnswerError(f"{config.device_name} answers, but its state is {pong['state']!r}")
    return str(pong.get("bundle", ""))


def clear_retained(config: Config, retained: Sequence[str]) -> None:
    """Have the broker forget what it retains on these topics. Raises BrokerError where it cannot be told."""
    with _Caller(config, _CONNECT_TIMEOUT_S) as caller:
        caller.clear(retained)


class _Caller:
    """A connection to the broker that asks one question at a time, in MQTT 3.1.1, unless the configuration says 5."""

    def __init__(self, config: Config, timeout_s: float, state_dir: Path | None = None) -> None:
        """`state_dir` has the key with which a device that takes signed requests only may ask itself."""
        self._config = config
        self._local_key = state_dir / LOCAL_KEY if state_dir is not None and config.mqtt.auth == "signed" else None
        self._challenge = ""  # the newest that the daemon has published
        mqtt = config.mqtt
        self._principal = mqtt.user if is_principal(mqtt.user) else "edgebit"
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._connected: queue.Queue[str] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edgebit-health-{secrets.token_hex(6)}",
            protocol=paho.MQTTv5 if mqtt.protocol == "5" else paho.MQTTv311,
        )
        if mqtt.user:
            self._client.username_pw_set(mqtt.user, read_password(mqtt))
        if (context := tls_context(mqtt)) is not None:
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        try:
            self._client.connect(mqtt.host, mqtt.port, keepalive=30)
        except OSError as error:
            raise BrokerError(f"the device cannot reach the broker {mqtt.url}: {error}. Look at --mqtt") from error
        self._client.loop_start()
        try:
            refused = self._connected.get(timeout=timeout_s)
        except queue.Empty:
            refused = f"no word within {timeout_s:g} s"
        if refused:
            self._close()
            raise BrokerError(f"the broker {mqtt.url} refused the device: {refused}. Look at --mqtt and the password")

    def __enter__(self) -> "_Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def must_be_connected(self) -> None:
        """Raises BrokerError where the broker went away meanwhile."""
        if not self._client.is_connected():
            raise BrokerError(f"the broker {self._config.mqtt.url} closed the connection during the check")

    def clear(self, retained: Sequence[str]) -> None:
        """Publish nothing there, retained: then nothing is. Raises BrokerError where that does not arrive."""
        try:
            for topic in retained:
                sent = self._client.publish(topic, b"", qos=1, retain=True)
                sent.wait_for_publish(_ECHO_S)
                if not sent.is_published():
                    raise BrokerError(f"the broker {self._config.mqtt.url} does not confirm it within {_ECHO_S:g} s")
        except (RuntimeError, ValueError) as error:
            raise BrokerError(f"the broker {self._config.mqtt.url} does not take it: {error}") from error

    def must_be_let_through(self) -> None:
        """Raises BrokerError where the broker keeps messages from the daemon, or from who asks it.

        Both are one user at the broker, which may drop without a word what its access list forbids (in MQTT 3.1.1 it
        cannot say so). So what is sent where questions and answers go must come back to the sender.
        """
        topics = self._config.topics
        self._client.subscribe(topics.requests, 1)
        for topic in (topics.request(self._principal, "ping"), topics.reply(self._principal, "health")):
            if not self._comes_back(topic):
                user = f"user {self._config.mqtt.user!r}" if self._config.mqtt.user else "a client without a user name"
                raise BrokerError(
                    f"the broker {self._config.mqtt.url} does not pass on what the device sends to {topic}: {user} may"
                    " not write there, or not read. Mend the broker's access list (docs/privacy.md)"
                )

    def _comes_back(self, topic: str) -> bool:
        probe = f"health-{secrets.token_hex(8)}"
        self._client.publish(topic, json.dumps({"id": probe}), qos=1)
        deadline = time.monotonic() + _ECHO_S
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                if self._replies.get(timeout=left_s).get("id") == probe:
                    return True
            except queue.Empty:
                break
        return False

    def ask(self, op: str, fields: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """The last frame of the answer, or None where none came in time."""
        job = f"health-{secrets.token_hex(8)}"
        payload = json.dumps({**fields, "id": job})
        if self._local_key is not None and op != "ping":
            payload = self._sealed(self._local_key, op, job, payload)
        self._client.publish(self._config.topics.request(self._principal, op), payload, qos=1)
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                reply = self._replies.get(timeout=left_s)
            except queue.Empty:
                return None
            if reply.get("id") == job and reply.get("t") in ("done", "error"):
                return reply
        return None

    def _sealed(self, key_file: Path, op: str, job: str, payload: str) -> str:
        """The payload as the device signs it to itself. Raises ConfigError where its key cannot be read."""
        try:
            key = key_file.read_bytes()
        except OSError as error:
            words = f"{key_file}, which the daemon makes, cannot be read: {error.strerror}. Check as the daemon's user"
            raise ConfigError(words) from error
        parts = {"base": self._config.topics.base, "principal": self._principal, "op": op, "job_id": job}
        text = text_to_sign(**parts, challenge=self._challenge, payload=payload.encode())
        code = local_code(key, text)
        return json.dumps(envelope(job_id=job, challenge=self._challenge, payload=payload, signature=code, local=True))

    def _on_connect(self, client: paho.Client, userdata: object, flags: object, reason: Any, *_: object) -> None:
        if reason.is_failure:
            self._connected.put(str(reason))
        else:
            topics = [self._config.topics.reply(self._principal, "+")]
            topics += [self._config.topics.info] if self._local_key is not None else []
            client.subscribe([(topic, 1) for topic in topics])

    def _on_subscribe(self, client: paho.Client, userdata: object, mid: int, reasons: list[Any], *_: object) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self._connected.put(f"it may not listen for answers ({failed[0]})" if failed else "")

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        try:
            reply = json.loads(message.payload)
        except ValueError:
            return
        if not isinstance(reply, dict):
            return
        if message.topic == self._config.topics.info:
            identity = reply.get("identity")
            self._challenge = str(identity.get("challenge", "")) if isinstance(identity, dict) else ""
        else:
            self._replies.put(reply)

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
