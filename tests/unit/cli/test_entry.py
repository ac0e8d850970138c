"""What `forkmaster …` does and says before any server is started."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from forkmaster import __version__
from forkmaster.cli import commands, entry

APPLICATION = "def application(environ, start_response): ...\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    for name in ("PORT", "WEB_CONCURRENCY", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def forkmaster(*arguments: str) -> int:
    """Runs the command line in this process.  Returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        entry.main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("flag", ["-v", "-V", "--version"])
def test_the_version_is_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert forkmaster(flag) == 0
    assert capsys.readouterr().out.startswith(f"forkmaster {__version__} (CPython 3.")


def test_the_version_is_told_after_other_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert forkmaster("-w", "3", "--version") == 0
    assert capsys.readouterr().out.startswith(f"forkmaster {__version__} ")


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--help-all",), ("serve", "--help")])
def test_help_is_no_mistake(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert forkmaster(*arguments) == 0
    assert "Usage: forkmaster [OPTIONS] [APP]" in capsys.readouterr().out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    forkmaster("--help")

    out = capsys.readouterr().out
    assert "\nCommands:\n" in out
    assert all(f"\n  {name} " in out for name in commands.COMMANDS)
    assert out.endswith("\nforkmaster --help-all shows every option.\n")


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
    ids=str,
)
@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_is_in_colour_where_that_is_asked_for(
    flag: str,
    environ: dict[str, str],
    colour: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    forkmaster(flag)

    assert ("\x1b[" in capsys.readouterr().out) is colour


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "forkmaster: no application is named; write forkmaster MODULE:ATTRIBUTE, "
                "as forkmaster project.wsgi or forkmaster main:app"),
        (["--wrokers", "3"], 2, "forkmaster: there is no option --wrokers; "
                                "did you mean --workers, --workers-max or --workers-min?"),
        (["--xyzzy"], 2, "forkmaster: there is no option --xyzzy; see forkmaster --help"),
        (["--workers"], 2,
         "forkmaster: option '--workers' requires an argument; see forkmaster --help"),
        (["config", "--workers"], 2,
         "forkmaster: option '--workers' requires an argument; see forkmaster config --help"),
        (["config", "--xyzzy"], 2,
         "forkmaster: there is no option --xyzzy; see forkmaster config --help"),
        (["schema", "--xyzzy"], 2,
         "forkmaster: there is no option --xyzzy; see forkmaster schema --help"),
        (["init", "sytemd"], 2, 'forkmaster: init: "sytemd" is not one of its words; '
                                "write config, systemd, nginx, docker or k8s"),
        (["completion"], 2, "forkmaster: completion: a word is missing; "
                            "write bash, zsh or fish"),
        (["check", "--fail-level", "FATAL"], 2,
         'forkmaster: --fail-level: "FATAL" is not one of its words; '
         "write CRITICAL, ERROR, WARNING, INFO or DEBUG"),
        (["migrate"], 2, "forkmaster: missing argument 'FILE'; see forkmaster migrate --help"),
        (["a:b", "c:d"], 2,
         "forkmaster: got unexpected extra argument (c:d); see forkmaster --help"),
        ([" "], 2, "forkmaster: the application is a blank; "
                   "is there a space after the backslash at the end of a line?"),
        (["-w", "3", "check"], 2, "forkmaster: check is a command and must come first: "
                                  "forkmaster check …; "
                                  "for the module of that name write check:application"),
        (["chekc"], 2,
         "forkmaster: there is no module chekc; did you mean forkmaster check?"),
        (["run", "a:b"], 2,
         "forkmaster: there is no command run; did you mean forkmaster serve?"),
        (["restart"], 2,
         "forkmaster: there is no module restart; did you mean forkmaster reload?"),
        (["scale", "many"], 2,
         'forkmaster: scale: "many" is not a number that it takes; write 0 or more'),
        (["incidents", "0"], 2,
         'forkmaster: incidents: "0" is not a number that it takes; write 1 or more'),
        (["scale"], 2, "forkmaster: missing argument 'WORKERS'; see forkmaster scale --help"),
        (["-w", "x", "a:b"], 5,
         'forkmaster: workers: "x" is not a whole number (--workers); '
         'write a number, as 4, or "auto"'),
        (["-c", "nowhere.py", "a:b"], 5,
         "forkmaster: there is no configuration file nowhere.py in {folder}"),
        (["--bind", ":1", "--host", "x", "a:b"], 2,
         "forkmaster: --bind and --host say the same twice; use one"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_a_remedy(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert forkmaster(*arguments) == code

    assert capsys.readouterr().err.splitlines() == [message.format(folder=tmp_path)]


def test_every_problem_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert forkmaster("-w", "x", "--threads", "0", "a:b") == 5

    assert capsys.readouterr().err.splitlines() == [
        'forkmaster: workers: "x" is not a whole number (--workers); '
        'write a number, as 4, or "auto"',
        "forkmaster: threads: 0 is too small (--threads); write 1 or more",
    ]


def test_a_module_with_the_name_of_a_command_is_reached_with_a_colon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.py").write_text(APPLICATION)

    assert forkmaster("check", "status:application") == 0
    assert "status:application can be loaded: WSGI, for sync workers" in capsys.readouterr().out


# check


def test_check_loads_the_application(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good_app.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text("workers = 2\nthredz = 4\n")

    assert forkmaster("check", "good_app", "--threads", "2") == 0

    captured = capsys.readouterr()
    assert captured.out == (
        "good_app can be loaded: WSGI, for threaded workers, "
        f"configured by {tmp_path}/gunicorn.conf.py\n"
    )
    assert captured.err == (
        "forkmaster: warning: thredz is not a setting (gunicorn.conf.py, line 2): "
        "did you mean threads?\n"
    )


@pytest.mark.parametrize("arguments", [("--check-config", "fine_app"), ("check", "fine_app")])
def test_check_config_is_another_word_for_it(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fine_app.py").write_text(APPLICATION)

    assert forkmaster(*arguments) == 0
    assert capsys.readouterr().out == "fine_app can be loaded: WSGI, for sync workers\n"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("raise RuntimeError('no')", 3, "RuntimeError: no"),
        ("app = 3", 4, 'has no attribute "application"'),
        ("application = 3", 4, "not a callable"),
        ("async def application(scope, receive, send): ...", 4, "worker_class is sync"),
    ],
)
def test_check_fails_as_the_server_would(
    text: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"bad_app_{code}_{len(text)}"
    (tmp_path / f"{module}.py").write_text(text)

    assert forkmaster("check", module, "-k", "sync") == code
    assert message in capsys.readouterr().err


def test_check_shows_where_the_application_failed_as_python_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing_app.py").write_text("import os\nos.nothing\n")

    assert forkmaster("check", "failing_app") == 3

    assert capsys.readouterr().err == (
        "forkmaster: cannot import failing_app\n"
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/failing_app.py", line 2, in <module>\n'
        "    os.nothing\n"
        "AttributeError: module 'os' has no attribute 'nothing'\n"
    )


def test_check_uses_what_a_worker_would_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETTING_OF_MINE", "before")
    (tmp_path / "lib").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "lib" / "lib_of_mine.py").write_text("")
    (tmp_path / "site" / "site_of_mine.py").write_text(
        "import os, lib_of_mine\nassert os.environ['SETTING_OF_MINE'] == 'x'\n" + APPLICATION
    )

    code = forkmaster(
        *("check", "site_of_mine", "--chdir", "site"),
        *("--pythonpath", str(tmp_path / "lib"), "-e", "SETTING_OF_MINE=x"),
    )

    assert code == 0, capsys.readouterr().err


# config


def test_config_shows_every_value_with_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("timeout = '2m'\numask = 0o27")
    monkeypatch.setenv("FORKMASTER_THREADS", "4")

    assert forkmaster("config", "-w", "3", "-e", "API_KEY=x") == 0

    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert "workers = 3 # --workers" in lines
    assert "timeout = 120 # gunicorn.conf.py, line 1" in lines
    assert 'umask = "0027" # gunicorn.conf.py, line 2' in lines
    assert "threads = 4 # FORKMASTER_THREADS" in lines
    assert "backlog = 2048 # default" in lines
    assert 'raw_env = ["API_KEY=[hidden]"] # --env' in lines


def test_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert forkmaster("config", "--json", "-w", "3") == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown["workers"] == {"value": 3, "origin": "--workers"}
    assert shown["bind"] == {"value": ["127.0.0.1:8000"], "origin": "default"}


def test_config_as_toml_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "workers = 3\nbind = [':1', 'unix:/x']\nsecure_scheme_headers = {'X-A': 'b'}\numask = 7"
    )
    forkmaster("config", "--toml")
    text = capsys.readouterr().out

    assert tomllib.loads(text) == {
        "bind": ["0.0.0.0:1", "unix:/x"],
        "umask": "0007",
        "workers": 3,
        "secure_scheme_headers": {"X-A": "b"},
    }
    (tmp_path / "forkmaster.toml").write_text(text)
    assert forkmaster("config", "--toml", "-c", "forkmaster.toml") == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(text)


def test_config_as_toml_says_what_it_cannot_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "import os\n"
        "def post_fork(server, worker): ...\n"
        "post_request = lambda worker, req: None\n"
        "on_exit = os._exit\n"
        "raw_env = ['TOKEN=1']\n"
        "uvicorn_options = {'ws_ping_interval': None, 'ws': 'wsproto'}\n"
    )

    assert forkmaster("config", "--toml") == 0

    text = capsys.readouterr().out
    assert text == (
        'raw_env = ["TOKEN=[hidden]"]  # gunicorn.conf.py, line 5; '
        "what is hidden must be written in\n"
        'uvicorn_options = { "ws" = "wsproto" }  # gunicorn.conf.py, line 6\n'
        "# post_fork: TOML cannot hold code; name it as package.module.name  "
        "# gunicorn.conf.py, line 2\n"
        "# post_request: TOML cannot hold code; name it as package.module.name  "
        "# gunicorn.conf.py, line 3\n"
        'on_exit = "posix._exit"  # gunicorn.conf.py, line 4\n'
    )
    (tmp_path / "forkmaster.toml").write_text(text)
    assert forkmaster("config", "-c", "forkmaster.toml") == 0


def test_print_config_prints_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "printed_app.py").write_text(APPLICATION)

    assert forkmaster("--print-config", "printed_app") == 0

    out = capsys.readouterr().out
    assert "workers " in out
    assert out.endswith("printed_app can be loaded: WSGI, for sync workers\n")


def test_what_is_nearly_a_setting_is_told_with_the_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text('worker = 3\ntimeout = "soon"\n')

    with pytest.raises(SystemExit) as ended:
        entry.main(["check", "a:b"])

    assert ended.value.code == 5
    assert capsys.readouterr().err.splitlines() == [
        "forkmaster: warning: worker is not a setting (gunicorn.conf.py, line 1): "
        "did you mean workers?",
        'forkmaster: timeout: "soon" is not a number of seconds (gunicorn.conf.py, line 2); '
        "write a number, as 30 or 0.5",
    ]


# What it costs


@pytest.mark.parametrize("argument", ["--version", "--help", "config"])
def test_nothing_heavy_is_imported(argument: str) -> None:
    code = (
        "import sys\n"
        "from forkmaster.cli.entry import main\n"
        "try:\n    main([sys.argv[1]])\nexcept SystemExit:\n    pass\n"
        "heavy = {'asyncio', 'uvicorn', 'psutil', 'httptools', 'ssl', 'logging.config'}\n"
        "heavy |= {'forkmaster.config.sources', 'difflib'} if 'help' in sys.argv[1] else set()\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, argument],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stderr == "[]\n"
