"""Who may do what: names that would lead out of a study's folder, archives, tokens, and servers that others reach."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from study.cluster.jobs import fetch as fetching
from study.cluster.jobs.payload import Code, _below, pack
from study.cluster.sinks.dispatcher import _why
from study.config.schema import StudyConfig
from study.errors import ClusterError, ConfigError, DiskError, LedgerError
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, AttemptRow, ReportRow
from study.ledger.store import Ledger, encode, read, refuse_links
from study.planning.trials import make_plan
from study.reporting.live.page import LivePage
from study.reporting.live.server import LiveServer
from study.safe_text import masked
from tests.cluster.jobs.test_fetch import Fake
from tests.cluster.sinks.studies import fake_rows, run_fake, study_plan
from tests.conftest import TINY, make_config, wait_for
from tests.faults.conftest import Injections
from tests.faults.failing_disk import files
from tests.faults.test_disk import drive, here
from tests.faults.test_machines import rows_of

__all__ = ["here"]  # the node of simulated studies
LEADING_OUT = ["../x", "..", "/etc/x", "a/b", "a/../../x", ".hidden", "a\nb", "a\0b", "", "~/x", "a\\b", "x" * 300]
ROOT = Path(__file__).parents[2]
SENTINEL = "s3ntinel-5a7e11173"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[AnyRow]:
    """Of a whole study, simulated."""
    folder = tmp_path_factory.mktemp("rows") / "s"
    drive(make_plan(make_config(batch_sizes=[16], confirm={"seeds": 1})), folder)
    return list(read(folder).rows)


def test_no_ledger_names_a_file_elsewhere(
    rows: list[AnyRow], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """Rows with a right checksum, as somebody would write them who means harm."""
    line = faults("name that leads out")
    by_kind = {row.kind: row for row in rows}
    named = [
        (row, key) for row in by_kind.values() for key in ("trial_id", "variant") if key in type(row).model_fields
    ]  # fmt: skip
    assert {row.kind for row, _ in named} >= {"attempt", "report", "decision", "end", "lease"}
    for row, key in named:
        for name in LEADING_OUT:
            if key == "variant" and name == "":
                continue  # the study without variants
            line.inject()
            StudyPaths(tmp_path).ledger.write_bytes(encode(row.model_copy(update={key: name})))
            before = files(tmp_path)
            for use in (read, Ledger):
                with pytest.raises(LedgerError, match=rf"{StudyPaths.LEDGER}:1: not a row of protocol") as raised:
                    use(tmp_path)
                assert len(str(raised.value).splitlines()) == 1
            StudyPaths(tmp_path).lock.unlink(missing_ok=True)
            assert files(tmp_path) == before
            line.survived()


def test_no_config_names_a_file_elsewhere(tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    line = faults("name that leads out")
    for name in LEADING_OUT:
        line.inject()
        with pytest.raises(ValueError, match="variants"):
            make_config(variants={name: {}})
        line.survived()
    for number, name in enumerate(["../../x", "/etc/x", "~/x"]):  # a study may be called so: no file is
        line.inject()
        place = tmp_path / str(number)
        place.mkdir()
        drive(make_plan(make_config(name=name, batch_sizes=[16], confirm={"seeds": 1})), place / "s")
        assert {path.split("/")[0] for path in files(tmp_path)} == {str(n) for n in range(number + 1)}
        assert {path.parts[0] for path in map(Path, files(place))} == {"s"}
        line.survived()


@pytest.mark.parametrize(
    "name", [StudyPaths.LEDGER, StudyPaths.CONFIG, StudyPaths.REPORT, StudyPaths.CHECKPOINTS, StudyPaths.SCRATCH]
)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_in_a_studys_folder_is_not_written_through(
    name: str, absolute: bool, rows: list[AnyRow], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("link that leads out")
    line.inject()
    folder, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for file in ("mine", ".mine.tmp", f"{rows[-1].at_s}@5-00000000.pt"):
        (elsewhere / file).write_text("mine")
    if name != StudyPaths.LEDGER:
        StudyPaths(folder).ledger.write_bytes(b"".join(map(encode, rows)))
    target = elsewhere / "mine" if name in (StudyPaths.LEDGER, StudyPaths.CONFIG) else elsewhere
    (folder / name).symlink_to(target if absolute else Path("..") / target.relative_to(tmp_path))
    before = files(tmp_path)
    for use in (refuse_links, Ledger):
        with pytest.raises(LedgerError, match=f"{name}: is a link; what a study writes lies in its own folder"):
            use(folder)
    assert files(tmp_path) == before
    line.survived()


@pytest.mark.parametrize("link", ["boards", "boards/of", "boards/of/mine"])
def test_a_link_on_the_way_to_the_boards_is_not_written_through(
    link: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("link that leads out")
    line.inject()
    folder, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    (elsewhere / "of" / "mine").mkdir(parents=True)
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(elsewhere)
    before = files(tmp_path)
    with pytest.raises(LedgerError, match=f"{link}: is a link; what a study writes lies in its own folder"):
        run_fake(study_plan(tensorboard="boards/of/mine"), folder)
    assert files(tmp_path) == before
    run_fake(study_plan(tensorboard=str(folder / "boards/of/mine")), folder)  # who writes it out means it
    assert files(tmp_path).keys() > before.keys()
    line.survived()


def test_a_link_in_place_of_a_trials_board_is_not_written_through(
    tmp_path: Path, faults: Callable[[str], Injections], caplog: pytest.LogCaptureFixture
) -> None:
    line = faults("link that leads out")
    line.inject()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s" / "boards").mkdir(parents=True)
    for trial in {row.trial_id for row in fake_rows() if isinstance(row, AttemptRow)}:
        (tmp_path / "s" / "boards" / trial).symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path)
    run_fake(study_plan(tensorboard="boards"), tmp_path / "s")
    assert files(tmp_path) == before
    assert "is a link; the study goes on without it" in caplog.text
    line.survived()


def test_a_lock_that_is_a_link_hurts_nothing(tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    line = faults("link that leads out")
    line.inject()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "s").mkdir()
    StudyPaths(tmp_path / "s").lock.symlink_to(tmp_path / "mine")
    with pytest.raises(DiskError, match="symbolic links"):
        Ledger(tmp_path / "s")
    assert (tmp_path / "mine").read_text() == "mine"
    line.survived()


class Bomb(Fake):
    """A cluster whose files have no end."""

    def __init__(self, name: str) -> None:
        super().__init__(**{name: b""})
        self._endless, self.sent_bytes = name, 0

    def chunks(self, name: str) -> Iterator[bytes]:
        while name == self._endless:
            self.sent_bytes += 1 << 20
            yield bytes(1 << 20)
        yield from super().chunks(name)


@pytest.mark.parametrize(
    "name", [StudyPaths.CONFIG, StudyPaths.LEDGER, "report/report.html", "checkpoints/a@5-00000000.pt"]
)
def test_a_file_without_an_end_is_given_up_and_what_was_there_stays(
    name: str, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("bomb")
    fetching.fetch(Fake(), tmp_path, checkpoints=True)
    before = files(tmp_path)
    line.inject()
    bomb = Bomb(name)
    with pytest.raises(ConfigError, match=f"^--most-gib: {name}: with this file the study is larger than the limit"):
        fetching.fetch(bomb, tmp_path, checkpoints=True, most_bytes=5 << 20)
    assert bomb.sent_bytes <= 6 << 20
    assert files(tmp_path) == before
    line.survived()


def test_many_files_and_a_config_without_an_end_are_given_up(
    tmp_path: Path, faults: Callable[[str], Injections], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = faults("bomb")
    line.inject(2)
    monkeypatch.setattr(fetching, "MOST_FILES", 50)
    with pytest.raises(ClusterError, match="the study has 53 files, more than the 50 that are fetched"):
        fetching.fetch(Fake(**{f"report/{n}": b"" for n in range(50)}), tmp_path / "out", checkpoints=False)
    assert not (tmp_path / "out").exists()
    bomb = Bomb(StudyPaths.CONFIG)
    with pytest.raises(ClusterError, match=r"config.yaml: larger than 16 MiB"):
        fetching.config_of(bomb)
    assert bomb.sent_bytes <= 17 << 20
    line.survived(times=2)


def test_what_is_sent_holds_no_link_and_no_name_that_climbs(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """Ray unpacks it on a node, over whatever lies there."""
    line = faults("link that leads out")
    line.inject()
    package, secret = tmp_path / "own", tmp_path / "secret.py"
    (package / "deep").mkdir(parents=True)
    secret.write_text("key = 1")
    (package / "__init__.py").write_text("")
    (package / "deep" / "ok.py").write_text("ok = 1")
    (package / "link.py").symlink_to(secret)
    (package / "deep" / "folder").symlink_to("/etc")
    (package / "inner.py").symlink_to("__init__.py")
    os.mkfifo(package / "pipe")
    (package / ".env").write_text("TOKEN=x")
    pack(make_config(), Code(dict(_below(package, tmp_path)), ()), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        entries = packed.infolist()
        own = {"own/__init__.py", "own/deep/ok.py", "own/inner.py"}
        assert {one.filename for one in entries} == own | {StudyPaths.CONFIG}
        assert {one.external_attr >> 16 for one in entries} == {0o644}  # files, not links
    line.survived()


@pytest.fixture
def open_page(tmp_path: Path, config: Callable[..., StudyConfig]) -> Iterator[LivePage]:
    """A live page that other machines reach."""
    with LivePage(tmp_path, make_plan(config()), host="0.0.0.0") as page:
        yield page


def asked(page: LivePage, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(page.url).port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    stream = path.startswith("/events") and answer.status == 200
    text = answer.readline().decode() if stream else answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def test_a_page_that_others_reach_wants_its_token_and_never_tells_it(
    open_page: LivePage, faults: Callable[[str], Injections], capfd: pytest.CaptureFixture[str]
) -> None:
    url = urlsplit(open_page.url)
    token, name = url.query.removeprefix("token="), f"study-{url.port}"
    assert len(token) >= 40
    line = faults("wrong token")
    wrong = ["", "x", token[:-1], token + "x", token.swapcase(), "%00", "%FF", "ü", "None"]
    for path in ("/", "/events", "/nothing"):
        for one in wrong:
            line.inject()
            for status, headers, text in (
                asked(open_page, path, Cookie=f"{name}={one}".encode().decode("latin-1")),
                asked(open_page, f"{path}?token={one.encode().hex() if not one.isascii() else one}"),
                asked(open_page, path, Cookie=f"study={token}"),  # another page's
                asked(open_page, path),
            ):
                assert status == 401
                assert token not in text + str(headers)
            line.survived()
    status, headers, text = asked(open_page, f"/?token={token}")
    assert (status, headers["Location"], text) == (303, "/", "")  # out of the address bar
    cookie = headers["Set-Cookie"]
    assert re.fullmatch(rf"{name}={token}; Path=/; HttpOnly; SameSite=Strict", cookie)
    for path in ("/", "/events"):
        status, headers, text = asked(open_page, path, Cookie=cookie.partition(";")[0])
        assert status == 200
        assert token not in text + str(headers)
        assert headers["Referrer-Policy"] == "no-referrer"
    assert token not in "".join(capfd.readouterr())


def test_tokens_are_compared_in_constant_time(open_page: LivePage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other comparison can let anybody in."""
    compared = []
    monkeypatch.setattr("study.reporting.live.server.hmac.compare_digest", lambda *both: compared.append(both) or False)
    token = urlsplit(open_page.url).query.removeprefix("token=")
    assert asked(open_page, f"/?token={token}")[0] == 401
    assert asked(open_page, "/", Cookie=f"study-{urlsplit(open_page.url).port}={token}")[0] == 401
    assert sum(brought == token.encode() for brought, _ in compared) == 2


@pytest.mark.parametrize(
    ("host", "wants"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True)],
)
def test_only_this_machines_own_addresses_go_without_a_token(host: str, wants: bool) -> None:
    class Nothing:
        def shell(self) -> str:
            return ""

        def stream(self, send: Callable[[bytes], object]) -> None: ...

    with LiveServer(Nothing(), host, 0) as server:
        assert (server.token is not None) == wants
        assert ("token=" in server.url) == wants


def test_what_opens_an_mlflow_server_is_told_to_that_server_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    faults: Callable[[str], Injections],
) -> None:
    """It refuses every call, of which there is a line."""
    brought = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            brought.append(self.headers["Authorization"])
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    line = faults("wrong token")
    line.inject()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SENTINEL)
    monkeypatch.setattr("study.cluster.sinks.dispatcher.RETRY_EVERY_S", 0.001)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        rows = run_fake(study_plan(mlflow=uri), tmp_path)
        server.shutdown()
    assert set(brought) == {f"Bearer {SENTINEL}"}
    assert f"study: MLflow at {uri}: " in caplog.text
    assert SENTINEL not in caplog.text + "".join(capfd.readouterr()) + "".join(map(str, rows))
    assert not any(SENTINEL.encode() in content for content in files(tmp_path).values())
    for secret in (f"http://me:{SENTINEL}@mlflow:5000", f"http://mlflow:5000/?token={SENTINEL}"):
        with pytest.raises(ValueError, match="must not hold what authorizes"):
            make_config(tracking={"mlflow": secret})
    line.survived()


PART = st.text(st.characters(exclude_characters="/", exclude_categories=["Z", "C"]), max_size=9)


@given(scheme=st.sampled_from(["http", "HTTPS", "s3", "postgresql+psycopg"]), user=PART, before=PART, after=PART)
def test_no_password_of_an_address_is_shown(scheme: str, user: str, before: str, after: str) -> None:
    address = f"{scheme}://{user}:{before}{SENTINEL}{after}@host:80/a?b=c#d"
    shown = masked(f"cannot reach {address} (refused)")
    assert SENTINEL not in shown
    assert shown.endswith("***@host:80/a?b=c#d (refused)")
    assert SENTINEL not in str(ConfigError(f"{address}: no", "tracking.mlflow"))


@given(
    start=st.sampled_from("?#&;"),
    name=st.sampled_from(
        ["token", "auth_token", "auth", "pass", "passwd", "password", "pwd", "pw", "jwt", "X-Amz-Signature", "sig"]
    ),
    rest=st.sampled_from(["", "&x=y", "#x", ";x=y", " and so on"]),
)
def test_no_token_of_an_address_is_shown(start: str, name: str, rest: str) -> None:
    for one in (name, name.upper(), f"my.{name}"):
        assert masked(f"s3://b/c?d=e{start}{one}={SENTINEL}{rest}") == f"s3://b/c?d=e{start}{one}=***{rest}"


def test_an_address_that_opens_nothing_is_shown_whole() -> None:
    for address in (
        "http://host:5000/a@b", "s3://bucket/a?region=eu-1&endpoint_override=c:90#d", "sqlite:////a:b@c/mlflow.db",
        "abfs://container@account.dfs.core.windows.net:443/a", "http://[::1]:80, me@there",
    ):  # fmt: skip
        assert masked(address) == address


def test_what_a_server_says_is_masked_before_it_is_cut() -> None:
    for letters in range(150, 200):
        assert "s3nt" not in _why(OSError(f"{'x' * letters} http://me:{SENTINEL}@host/ said no"))


JOIN = "import ray, sys; ray.init(sys.argv[1]); print(len(ray.nodes()), 'joined')"


def join(address: str, home: Path, **token: str) -> str:
    """What comes of joining a Ray as another user of the machine would."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = plain | {"HOME": str(home)} | token
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address], env=environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def told_a_stranger(port: int) -> bytes:
    """What a port says to who brings no token: nothing where it refuses, or speaks no HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ConnectionError):
            raise
    except (ConnectionError, http.client.BadStatusLine):
        pass
    return b""


@pytest.mark.thorough
def test_a_real_study_tells_its_tokens_to_nobody_and_lets_nobody_in(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """Its own Ray's token, and the live page's: looked for in all command lines, files and lines printed."""
    line = faults("stranger at a port")
    (tmp_path / "home").mkdir()
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"budget": {"epochs": 3000}}))
    scratch = Path(tempfile.mkdtemp(prefix="ray"))  # short, for sockets lie in it
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "study", "run", "tiny", "--out", "s", "--cpus", "1", "--live", "--host", "0.0.0.0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=plain | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(scratch)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        page = re.fullmatch(r"Live: http://\S+/\?token=(\S+)\n", first)
        assert page is not None, first
        wait_for(lambda: rows_of(tmp_path / "s", ReportRow), process)
        own = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        raylet = next(one for one in own if one.name() == "raylet")
        tokens = (page[1], raylet.environ()["RAY_AUTH_TOKEN"])
        assert len(tokens[1]) == 64
        assert raylet.environ()["RAY_AUTH_MODE"] == "token"
        for one in own:
            assert not any(token in word for token in tokens for word in one.cmdline())

        listening: dict[int, str] = {}
        for one in own:
            with suppress(psutil.NoSuchProcess):
                for connection in one.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        listening[connection.laddr.port] = one.name()
        for port in listening:  # who asks without a token reads figures at the most
            line.inject()
            told = told_a_stranger(port)
            assert told == b"" or told.startswith(b"# HELP"), (port, listening[port])
            line.survived()
        control = next(port for port, name in listening.items() if name == "gcs_server")
        line.inject()
        refused = join(f"127.0.0.1:{control}", tmp_path / "home")
        assert "ConnectionError" in refused
        assert "joined" not in refused
        line.survived()
        known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": tokens[1]}
        assert "1 joined" in join(f"127.0.0.1:{control}", tmp_path / "home", **known)

        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=100)
        assert process.returncode == 130, printed
    finally:
        process.kill()
        process.wait()
    assert (StudyPaths(tmp_path / "s").report / "report.html").exists()
    assert not (tmp_path / "home" / ".ray").exists()
    searched = 0
    for folder in (tmp_path, scratch):
        for path in folder.rglob("*"):
            if path.is_file():
                searched += 1
                content = path.read_bytes()
                assert not any(token.encode() in content for token in tokens), path
    assert searched > 20
    assert not any(token in printed for token in tokens)  # after the line that is there to tell it
    shutil.rmtree(scratch)
